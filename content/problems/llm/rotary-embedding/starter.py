import torch


def apply_rotary(x: torch.Tensor, positions: torch.Tensor, base: float = 10000.0) -> torch.Tensor:
    """Turn the pairs (x[i], x[i + d/2]) of each vector by position · base^(-2i/d)."""
    raise NotImplementedError
