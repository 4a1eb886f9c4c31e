# expect: wrong answer: values
# A set difference forgets the order.
import torch


def k_fold(order, k):
    if not 2 <= k <= len(order):
        raise ValueError("k")
    folds = order.tensor_split(k)
    everything = set(order.tolist())
    return [(torch.tensor(sorted(everything - set(fold.tolist()))), fold) for fold in folds]
