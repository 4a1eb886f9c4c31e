"""Longest common subsequence of two sequences."""

from __future__ import annotations

from collections.abc import Hashable, Sequence


def longest_common_subsequence(
    left: Sequence[Hashable], right: Sequence[Hashable]
) -> list[tuple[int, int]]:
    """Return the pairs of indices of a longest common subsequence, in order.

    Bit-parallel (H. Hyyrö, "Bit-parallel LCS-length computation revisited", 2004): a row of the
    dynamic program is one integer of len(right) bits, so time and memory are those of
    len(left) · len(right) bit operations. Of several subsequences the earliest in `left` is taken.
    """
    # The program runs from the ends, so that reading it back begins at the beginnings.
    m = len(right)
    places: dict[Hashable, int] = {}
    for at, item in enumerate(reversed(right)):
        places[item] = places.get(item, 0) | 1 << at
    full = (1 << m) - 1
    # Bit j of rows[i] is 0 where right's last j + 1 items share one item more with left's last i
    # than its last j do.
    rows = [full]
    for item in reversed(left):
        row = rows[-1]
        matches = row & places.get(item, 0)
        rows.append(((row + matches) | (row - matches)) & full)
    pairs: list[tuple[int, int]] = []
    i, j = len(left), m
    while i and j:
        bit = 1 << (j - 1)
        if rows[i] & bit:
            j -= 1
        elif rows[i - 1] & bit:
            pairs.append((len(left) - i, m - j))
            i, j = i - 1, j - 1
        else:
            i -= 1
    return pairs
