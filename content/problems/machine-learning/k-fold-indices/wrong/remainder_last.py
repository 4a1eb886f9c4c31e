# expect: wrong answer: shape
# The last fold takes the whole remainder.
import torch


def k_fold(order, k):
    if not 2 <= k <= len(order):
        raise ValueError("k")
    size = len(order) // k
    ends = [i * size for i in range(k)] + [len(order)]
    return [
        (torch.cat([order[:a], order[b:]]), order[a:b])
        for a, b in zip(ends[:-1], ends[1:], strict=True)
    ]
