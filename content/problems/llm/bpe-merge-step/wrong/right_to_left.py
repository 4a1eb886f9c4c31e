# expect: wrong answer: shape
from collections import Counter


def merge_step(words):
    counts = Counter()
    for word, number in words.items():
        for pair in zip(word, word[1:]):
            counts[pair] += number
    if not counts:
        return None, dict(words)
    best = min(counts, key=lambda pair: (-counts[pair], pair))
    merged = Counter()
    for word, number in words.items():
        out, at = [], len(word)
        while at > 0:
            step = 2 if word[max(at - 2, 0) : at] == best else 1
            out.append("".join(word[at - step : at]))
            at -= step
        merged[tuple(reversed(out))] += number
    return best, dict(merged)
