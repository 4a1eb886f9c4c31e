# expect: wrong answer: values
# Right sizes, but the pieces are interleaved.
import torch


def k_fold(order, k):
    if not 2 <= k <= len(order):
        raise ValueError("k")
    place = torch.arange(len(order)) % k
    return [(order[place != i], order[place == i]) for i in range(k)]
