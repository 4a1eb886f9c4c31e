import math

import torch


def merge_lora(
    weight: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    alpha: float,
    rank_stabilized: bool = False,
    unmerge: bool = False,
    in_place: bool = False,
) -> torch.Tensor:
    """Return W ± s B A in the type of `weight`; in its memory, if `in_place`."""
    rank = len(a)
    if a.shape != (rank, weight.shape[1]) or b.shape != (weight.shape[0], rank):
        raise ValueError(f"factors {tuple(a.shape)}, {tuple(b.shape)}: W is {tuple(weight.shape)}")
    scale = alpha / (math.sqrt(rank) if rank_stabilized else rank)
    if unmerge:
        scale = -scale
    wide = torch.promote_types(weight.dtype, torch.float32)
    merged = (weight.to(wide) + scale * (b.to(wide) @ a.to(wide))).to(weight.dtype)
    # Looked at after the rounding, as float16 ends at 65,504, and before anything is written.
    if not merged.isfinite().all():
        raise ValueError("the merged weight would hold numbers that are not finite")
    return weight.copy_(merged) if in_place else merged
