"""Dropout without a generator: what happens to a number depends on a seed, its row and its column.

So the backward pass draws again what the forward pass drew instead of keeping a mask, and the
result depends neither on threads nor on the width of vectors. `native/dropout.h` does the same in
C++; this is the definition, in plain PyTorch, on any device. The mixing of 32 bits is lowbias32
(Wellons 2018, "Prospecting for hash functions").
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_BITS = 0xFFFFFFFF


@dataclass(frozen=True)
class Dropout:
    """Which numbers are dropped, and what the others are multiplied with."""

    share: float
    """Probability of dropping a number; 0: none is."""

    seed: int = 0
    """From 0 to 2⁶² − 1."""

    @property
    def on(self) -> bool:
        """Whether any number may be dropped."""
        return self.share > 0.0

    @property
    def threshold(self) -> int:
        """What a number's 32 random bits must reach for it to stay."""
        return min(round(self.share * 2**32), _BITS)

    @property
    def factor(self) -> float:
        """Factor on the numbers that stay: the mean is kept."""
        return 1.0 / (1.0 - self.share) if self.share < 1.0 else 0.0

    def factors(self, first_row: int, rows: int, columns: int, device: torch.device) -> Tensor:
        """Return `factor` or 0 for each number of `rows` rows, (rows, columns) float32."""
        low, high = self.seed & _BITS, self.seed >> 32
        row = torch.arange(first_row, first_row + rows, device=device)
        key = _mixed((_mixed((row & _BITS) ^ low) + high) & _BITS)
        column = torch.arange(columns, device=device) * 0x9E3779B9 & _BITS
        drawn = _mixed((key[:, None] + column) & _BITS)
        return (drawn >= self.threshold).float() * self.factor


NO_DROPOUT = Dropout(0.0)


def _mixed(x: Tensor) -> Tensor:
    """Return 32 bits in each int64, mixed."""
    x = x ^ (x >> 16)
    x = _times(x, 0x7FEB352D)
    x = x ^ (x >> 15)
    x = _times(x, 0x846CA68B)
    return x ^ (x >> 16)


def _times(x: Tensor, factor: int) -> Tensor:
    """Return the low 32 bits of a product, in halves that int64 holds."""
    high, low = factor >> 16, factor & 0xFFFF
    return (((x * high & 0xFFFF) << 16) + x * low) & _BITS
