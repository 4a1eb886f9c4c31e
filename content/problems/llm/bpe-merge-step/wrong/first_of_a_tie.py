# expect: wrong answer: values
from collections import Counter


def merge_step(words):
    counts = Counter()
    for word, number in words.items():
        for pair in zip(word, word[1:]):
            counts[pair] += number
    if not counts:
        return None, dict(words)
    best = max(counts, key=counts.get)
    merged = Counter()
    for word, number in words.items():
        out, at = [], 0
        while at < len(word):
            step = 2 if word[at : at + 2] == best else 1
            out.append("".join(word[at : at + step]))
            at += step
        merged[tuple(out)] += number
    return best, dict(merged)
