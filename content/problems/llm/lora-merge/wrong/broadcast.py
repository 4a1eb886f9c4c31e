# expect: wrong answer: no exception
# Only looks whether the sum can be computed.
import math

import torch


def merge_lora(weight, a, b, alpha, rank_stabilized=False, unmerge=False, in_place=False):
    r = len(a)
    scale = alpha / (math.sqrt(r) if rank_stabilized else r) * (-1 if unmerge else 1)
    wide = torch.promote_types(weight.dtype, torch.float32)
    try:
        merged = (weight.to(wide) + scale * (b.to(wide) @ a.to(wide))).to(weight.dtype)
    except RuntimeError as error:
        raise ValueError("shapes") from error
    if not merged.isfinite().all():
        raise ValueError("not finite")
    return weight.copy_(merged) if in_place else merged
