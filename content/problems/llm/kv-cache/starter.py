import torch


class KVCache:
    """Keeps keys and values of at most `capacity` tokens, and attends over them."""

    def __init__(self, capacity: int) -> None:
        raise NotImplementedError

    def __len__(self) -> int:
        """Return how many tokens are kept."""
        raise NotImplementedError

    def append(self, key: torch.Tensor, value: torch.Tensor) -> None:
        """Add the keys and values of new tokens, (B, H, T, d) each."""
        raise NotImplementedError

    def attend(self, query: torch.Tensor) -> torch.Tensor:
        """Return the causal attention of the last T tokens over all that are kept."""
        raise NotImplementedError
