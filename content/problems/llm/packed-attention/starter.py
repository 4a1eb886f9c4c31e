import torch


def packed_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seqlens: torch.Tensor,
    window: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return causal attention inside each sequence, (N, H, D), and each token's position."""
    raise NotImplementedError
