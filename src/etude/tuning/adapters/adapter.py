"""What one adapter of one layer is, whatever its kind, and what it must be able to do.

`AdaptedLayer` holds adapters and asks them for these few things; it knows none of their kinds. The
kinds themselves are in `kinds/`, and `registry` says what a kind brings beside the class.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from etude.core.errors import AdapterError
from etude.tuning.adapters import bases
from etude.tuning.adapters.bases import Base, LinearLike

LOW_PRECISION = (torch.bfloat16, torch.float16)


class Adapter(nn.Module):
    """One adapter of one layer.

    Attributes:
        kind: name of its kind, as in the recipe's `adapter.kind`.
        in_features, out_features: sizes of W.
        rank: r, or 0 where the adapter is no product of two factors.
        alpha: α. scaling: s in ΔW = s·B A.
        dropout: probability of zeroing an element of the adapter's input, in training.
    """

    kind: ClassVar[str]

    no_sum: ClassVar[str | None] = None
    """Why such an adapter cannot be added to others (`combine`): the end of a sentence; or None."""

    def __init__(self, base: Base, rank: int, alpha: float, scaling: float, dropout: float) -> None:
        super().__init__()
        self.in_features, self.out_features = bases.sizes(base)
        self.rank = rank
        self.alpha = alpha
        self.scaling = scaling
        self.dropout = dropout

    def reset(self, base: Base, generator: torch.Generator) -> None:
        """Set the first values, with which the layer computes what its base does."""
        raise NotImplementedError

    def trained(self) -> dict[str, nn.Parameter]:
        """Return the trained tensors by the names that PEFT gives them."""
        raise NotImplementedError

    def change(self, base: Base, x: Tensor, y: Tensor | None) -> Tensor:
        """Return what the adapter adds to the base's output for `x`.

        Args:
            base: the layer.
            x: the layer's input.
            y: `base(x)`, if it is known.
        """
        raise NotImplementedError

    def product(self, base: LinearLike, x: Tensor) -> Tensor | None:
        """Return the adapted output of a Linear in one go; None: it is `base(x) + change`."""
        del base, x

    def add_delta(self, W: Tensor, base: Base) -> None:
        """Add to W, (out, in) float32, in place, what the adapter changes in the base's weight."""
        raise NotImplementedError

    def bias_delta(self, base: Base) -> Tensor | None:
        """Return what the adapter changes in the base's bias, (out,) float32, or None."""
        del base

    def plain_factors(self) -> tuple[Tensor, Tensor] | None:
        """Return A, B if the adapter now adds s·B A x and nothing else, so that products may fuse.

        None where it does more, or something else: with a magnitude, with dropout in training.
        """
        return None

    def as_lora(self, path: str) -> tuple[Tensor, Tensor, float] | None:
        """Return (A, B, α) of the plain LoRA that computes the same; None where it adds nothing.

        Raises:
            AdapterError: there is none; `path`, of the module, is named.
        """
        raise AdapterError(f"{path}: {self.no_sum}, so it does not add")

    def drop(self, x: Tensor) -> Tensor | None:
        """Return x with dropout, or None where there is none to apply."""
        return F.dropout(x, self.dropout) if self.drops else None

    @property
    def drops(self) -> bool:
        """Whether dropout acts now."""
        return self.training and self.dropout > 0

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move to a device or dtype as any module, but keep the factors' precision."""
        before = {name: parameter.data for name, parameter in self.named_parameters()}
        super()._apply(fn, recurse)  # pyright: ignore[reportUnknownMemberType] - torch's is untyped
        for name, parameter in self.named_parameters():
            if parameter.dtype in LOW_PRECISION:
                parameter.data = before[name].to(parameter.device)
        return self

    def extra_repr(self) -> str:
        """Describe the adapter."""
        return f"{self.kind}, rank={self.rank}, scaling={self.scaling:g}, dropout={self.dropout:g}"
