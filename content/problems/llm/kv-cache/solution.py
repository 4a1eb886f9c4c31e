import math

import torch


class KVCache:
    """Keeps keys and values of at most `capacity` tokens, and attends over them.

    The memory is taken once, at the first `append`; each later one writes into it.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.length = 0
        self.keys = self.values = torch.empty(0)

    def __len__(self) -> int:
        """Return how many tokens are kept."""
        return self.length

    def append(self, key: torch.Tensor, value: torch.Tensor) -> None:
        """Add the keys and values of new tokens, (B, H, T, d) each."""
        batch, heads, tokens, width = key.shape
        end = self.length + tokens
        if end > self.capacity:
            raise ValueError(f"{end} tokens do not fit into a cache of {self.capacity}")
        if self.length == 0:
            self.keys = key.new_empty(batch, heads, self.capacity, width)
            self.values = torch.empty_like(self.keys)
        self.keys[:, :, self.length : end] = key
        self.values[:, :, self.length : end] = value
        self.length = end

    def attend(self, query: torch.Tensor) -> torch.Tensor:
        """Return the causal attention of the last T tokens over all that are kept."""
        tokens, width = query.shape[-2:]
        if tokens > self.length:
            raise ValueError(f"{tokens} queries but only {self.length} tokens")
        keys, values = self.keys[:, :, : self.length], self.values[:, :, : self.length]
        scores = query @ keys.transpose(-2, -1) / math.sqrt(width)
        here = torch.arange(self.length - tokens, self.length)[:, None]
        later = torch.arange(self.length) > here
        return scores.masked_fill(later, -math.inf).softmax(-1) @ values
