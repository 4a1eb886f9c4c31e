# expect: wrong answer: no exception
import torch


def causal_mask(queries, keys, window=None):
    if queries > keys:
        raise ValueError("sizes")
    here = torch.arange(keys - queries, keys)[:, None]
    there = torch.arange(keys)
    mask = there <= here
    if window:
        mask &= there > here - window
    return mask
