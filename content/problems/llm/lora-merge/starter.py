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
    raise NotImplementedError
