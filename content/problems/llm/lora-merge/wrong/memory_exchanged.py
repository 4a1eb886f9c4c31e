# expect: wrong answer: values
# Assigning to .data gives the weight other memory: views and tied weights keep the old numbers.
import math

import torch


def merge_lora(weight, a, b, alpha, rank_stabilized=False, unmerge=False, in_place=False):
    r = len(a)
    if a.shape != (r, weight.shape[1]) or b.shape != (weight.shape[0], r):
        raise ValueError("shapes")
    scale = alpha / (math.sqrt(r) if rank_stabilized else r) * (-1 if unmerge else 1)
    wide = torch.promote_types(weight.dtype, torch.float32)
    merged = (weight.to(wide) + scale * (b.to(wide) @ a.to(wide))).to(weight.dtype)
    if not merged.isfinite().all():
        raise ValueError("not finite")
    if not in_place:
        return merged
    weight.data = merged
    return weight
