import torch


def causal_mask(queries: int, keys: int, window: int | None = None) -> torch.Tensor:
    """Return (queries, keys), True where a query may look; queries are the last positions."""
    raise NotImplementedError
