"""Which words of an answer count for ROUGE-L: those of the longest common subsequence.

ROUGE-L (Lin 2004, section 3) is the F-measure of the longest sequence of words that answer and
reference share in the same order, gaps allowed. Marking those words shows what the score saw.
"""

from __future__ import annotations

import re
from itertools import pairwise

WORD = re.compile(r"[A-Za-z0-9]+")

LONGEST = 400
"""Words compared; what follows is left unmarked, since the work grows with the square."""


def shared_words(reference: str, answer: str) -> list[tuple[str, bool]]:
    """Cut `answer` into pieces, each with whether it is a word that counts for ROUGE-L.

    The pieces joined are the answer.
    """
    wanted = [word.lower() for word in WORD.findall(reference)[:LONGEST]]
    found = list(WORD.finditer(answer))[:LONGEST]
    counted = _common([match[0].lower() for match in found], wanted)
    spans = [found[index].span() for index in counted]
    pieces: list[tuple[str, bool]] = []
    for (_, end), (start, next_end) in pairwise([(0, 0), *spans]):
        pieces += [(answer[end:start], False), (answer[start:next_end], True)]
    rest = spans[-1][1] if spans else 0
    pieces.append((answer[rest:], False))
    return [piece for piece in pieces if piece[0]]


def _common(left: list[str], right: list[str]) -> list[int]:
    """Return the indices in `left` of a longest common subsequence with `right`."""
    # longest[i][j]: its length for left[i:] and right[j:].
    longest = [[0] * (len(right) + 1) for _ in range(len(left) + 1)]
    for i in reversed(range(len(left))):
        for j in reversed(range(len(right))):
            longest[i][j] = (
                1 + longest[i + 1][j + 1]
                if left[i] == right[j]
                else max(longest[i + 1][j], longest[i][j + 1])
            )
    indices: list[int] = []
    i = j = 0
    while i < len(left) and j < len(right):
        if left[i] == right[j]:
            indices.append(i)
            i, j = i + 1, j + 1
        elif longest[i + 1][j] >= longest[i][j + 1]:
            i += 1
        else:
            j += 1
    return indices
