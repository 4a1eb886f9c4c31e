import torch


def lora_forward(
    x: torch.Tensor, weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor, alpha: float
) -> torch.Tensor:
    """Return x Wᵀ + (α/r) x Aᵀ Bᵀ in the type of `x`; (..., n) becomes (..., m)."""
    raise NotImplementedError
