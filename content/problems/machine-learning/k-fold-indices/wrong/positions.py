# expect: wrong answer: values
# Positions instead of what stands there: the shuffle has no effect.
import torch


def k_fold(order, k):
    if not 2 <= k <= len(order):
        raise ValueError("k")
    folds = torch.arange(len(order)).tensor_split(k)
    return [(torch.cat(folds[:i] + folds[i + 1 :]), fold) for i, fold in enumerate(folds)]
