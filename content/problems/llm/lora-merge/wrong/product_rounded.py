# expect: wrong answer: values
# B A in the type of the weight.
import math


def merge_lora(weight, a, b, alpha, rank_stabilized=False, unmerge=False, in_place=False):
    r = len(a)
    if a.shape != (r, weight.shape[1]) or b.shape != (weight.shape[0], r):
        raise ValueError("shapes")
    scale = alpha / (math.sqrt(r) if rank_stabilized else r) * (-1 if unmerge else 1)
    merged = weight + (scale * (b @ a)).to(weight.dtype)
    if not merged.isfinite().all():
        raise ValueError("not finite")
    return weight.copy_(merged) if in_place else merged
