import torch


def double_quantize(
    scales: torch.Tensor, levels: torch.Tensor, count: int, group_size: int = 256
) -> dict[str, torch.Tensor | float]:
    """Return 8-bit codes of block scales, what restores them, and the bits for each weight."""
    raise NotImplementedError
