import torch


def causal_mask(queries: int, keys: int, window: int | None = None) -> torch.Tensor:
    """Return (queries, keys), True where a query may look; queries are the last positions."""
    if queries > keys:
        raise ValueError(f"{queries} queries but only {keys} keys")
    if window is not None and window < 1:
        raise ValueError(f"a window of {window} keys leaves nothing to look at")
    here = torch.arange(keys - queries, keys)[:, None]
    there = torch.arange(keys)
    mask = there <= here
    if window is not None:
        mask &= there > here - window
    return mask
