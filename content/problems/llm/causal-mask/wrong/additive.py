# expect: wrong answer: dtype
import torch


def causal_mask(queries, keys, window=None):
    if queries > keys or (window is not None and window < 1):
        raise ValueError("sizes")
    here = torch.arange(keys - queries, keys)[:, None]
    there = torch.arange(keys)
    mask = there <= here
    if window is not None:
        mask &= there > here - window
    return torch.zeros(queries, keys).masked_fill(~mask, float("-inf"))
