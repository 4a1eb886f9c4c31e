"""Words of an answer that count for ROUGE-L, for marking in the report."""

from __future__ import annotations

from itertools import pairwise

from etude.tuning.metrics.lcs import longest_common_subsequence
from etude.tuning.metrics.rouge import split_words


def shared_words(reference: str, answer: str) -> list[tuple[str, bool]]:
    """Split `answer` into pieces, each with whether it counts for ROUGE-L.

    Those words form the longest common subsequence with `reference`, on which the score is based.
    Joined, the pieces are the answer.
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
