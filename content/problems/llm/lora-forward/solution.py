import torch
from torch.nn import functional as F


def lora_forward(
    x: torch.Tensor, weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor, alpha: float
) -> torch.Tensor:
    """Return x Wᵀ + (α/r) x Aᵀ Bᵀ in the type of `x`; (..., n) becomes (..., m)."""
    # Down to r numbers a row, then up: the matrix B A is never made.
    correction = F.linear(F.linear(x.to(a.dtype), a), b)
    return (F.linear(x, weight) + correction * (alpha / len(a))).to(x.dtype)
