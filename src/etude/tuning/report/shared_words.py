"""Which words of an answer count for ROUGE-L, so that the report can mark them."""

from __future__ import annotations

from itertools import pairwise

from etude.tuning.metrics.lcs import longest_common_subsequence
from etude.tuning.metrics.rouge import split_words


def shared_words(reference: str, answer: str) -> list[tuple[str, bool]]:
    """Cut `answer` into pieces, each with whether it is a word that counts for ROUGE-L.

    Those are the words of the longest common subsequence with `reference`, which the score is made
    of. The pieces joined are the answer.
    """
    found, wanted = split_words(answer), split_words(reference)
    counted = longest_common_subsequence(
        [word.key for word in found], [word.key for word in wanted]
    )
    spans = [(found[at].start, found[at].end) for at, _ in counted]
    pieces: list[tuple[str, bool]] = []
    for (_, end), (start, next_end) in pairwise([(0, 0), *spans]):
        pieces += [(answer[end:start], False), (answer[start:next_end], True)]
    rest = spans[-1][1] if spans else 0
    pieces.append((answer[rest:], False))
    return [piece for piece in pieces if piece[0]]
