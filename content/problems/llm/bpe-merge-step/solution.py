from collections import Counter
from itertools import pairwise


def merge_step(
    words: dict[tuple[str, ...], int],
) -> tuple[tuple[str, str] | None, dict[tuple[str, ...], int]]:
    """Return the most frequent pair of neighbours, and the words in which it is merged."""
    counts: Counter[tuple[str, str]] = Counter()
    for word, number in words.items():
        for pair in pairwise(word):
            counts[pair] += number
    if not counts:
        return None, dict(words)
    best = min(counts, key=lambda pair: (-counts[pair], pair))
    merged: Counter[tuple[str, ...]] = Counter()
    for word, number in words.items():
        merged[_merge(word, best)] += number
    return best, dict(merged)


def _merge(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    """Join each occurrence of `pair`, from left to right."""
    symbols: list[str] = []
    at = 0
    while at < len(word):
        if word[at : at + 2] == pair:
            symbols.append(pair[0] + pair[1])
            at += 2
        else:
            symbols.append(word[at])
            at += 1
    return tuple(symbols)
