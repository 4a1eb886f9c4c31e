# expect: wrong answer: shape
# The last N mod K samples are never tested.
import torch


def k_fold(order, k):
    if not 2 <= k <= len(order):
        raise ValueError("k")
    size = len(order) // k
    return [
        (torch.cat([order[: i * size], order[(i + 1) * size :]]), order[i * size : (i + 1) * size])
        for i in range(k)
    ]
