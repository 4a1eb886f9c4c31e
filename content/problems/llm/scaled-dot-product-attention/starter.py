import torch


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return softmax(query · keyᵀ / √d) · value, with True in `mask` where a query may look."""
    raise NotImplementedError
