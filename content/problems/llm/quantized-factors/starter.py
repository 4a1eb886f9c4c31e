import torch


def quantized_factors(
    x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, bits: int
) -> dict[str, torch.Tensor | float]:
    """Return the codes and scales of B A, its product with `x`, and its relative error."""
    raise NotImplementedError
