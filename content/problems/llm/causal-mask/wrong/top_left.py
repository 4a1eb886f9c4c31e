# expect: wrong answer: values
import torch


def causal_mask(queries, keys, window=None):
    if queries > keys or (window is not None and window < 1):
        raise ValueError("sizes")
    mask = torch.ones(queries, keys, dtype=torch.bool).tril()
    if window is not None:
        mask &= torch.ones(queries, keys, dtype=torch.bool).triu(1 - window)
    return mask
