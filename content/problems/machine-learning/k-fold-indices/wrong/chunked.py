# expect: wrong answer: shape
# Pieces of ceil(N / K) samples; the last fold gets what is left, or does not exist.
import torch


def k_fold(order, k):
    if not 2 <= k <= len(order):
        raise ValueError("k")
    folds = order.chunk(k)
    return [(torch.cat(folds[:i] + folds[i + 1 :]), fold) for i, fold in enumerate(folds)]
