"""Base class of adapters: the interface that every kind of adapter implements.

`AdaptedLayer` holds adapters and uses them through this interface only. The kinds are in `kinds/`;
`registry` describes each kind's configuration and files.
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
    """An adapter of one layer.

    Attributes:
        kind: name of the kind, as in the recipe's `adapter.kind`.
        in_features, out_features: sizes of W.
        rank: r, or 0 if the adapter is not a product of two factors.
        alpha: α. scaling: s in ΔW = s·B A.
        dropout: probability of zeroing an element of the adapter's input, in training.
    """

    kind: ClassVar[str]

    no_sum: ClassVar[str | None] = None
    """Why such an adapter cannot be combined with others, for messages; or None."""

    def __init__(self, base: Base, rank: int, alpha: float, scaling: float, dropout: float) -> None:
        super().__init__()
        self.in_features, self.out_features = bases.sizes(base)
        self.rank = rank
        self.alpha = alpha
        self.scaling = scaling
        self.dropout = dropout

    def reset(self, base: Base, generator: torch.Generator) -> None:
        """Set the initial values, for which the layer's output equals the base's."""
        raise NotImplementedError

    def trained(self) -> dict[str, nn.Parameter]:
        """Return the trained tensors by their PEFT names."""
        raise NotImplementedError

    def change(self, base: Base, x: Tensor, y: Tensor | None) -> Tensor:
        """Return what the adapter adds to the base's output for `x`.

        Args:
            base: the layer.
            x: the layer's input.
            y: `base(x)`, if already computed.
        """
        raise NotImplementedError

    def product(self, base: LinearLike, x: Tensor) -> Tensor | None:
        """Return the adapted output of a Linear in one operation; None: use `base(x) + change`."""
        del base, x

    def add_delta(self, W: Tensor, base: Base) -> None:
        """Add the adapter's change of the base's weight to W, (out, in) float32, in place."""
        raise NotImplementedError

    def bias_delta(self, base: Base) -> Tensor | None:
        """Return the adapter's change of the base's bias, (out,) float32, or None."""
        del base

    def plain_factors(self) -> tuple[Tensor, Tensor] | None:
        """Return A, B if the adapter currently adds just s·B A x, so that products may fuse.

        None otherwise, for example with a magnitude, or with dropout in training.
        """
        return None

    def fused_parts(self, base: Base) -> tuple[tuple[Tensor, ...], Tensor | None] | None:
        """Return what a fused layer computes with; None: it cannot.

        Returns:
            A and B, and a magnitude if the adapter has one; and the norms that divide it.
        """
        del base

    def as_lora(self, path: str) -> tuple[Tensor, Tensor, float] | None:
        """Return (A, B, α) of the equivalent plain LoRA; None if it changes nothing.

        Raises:
            AdapterError: there is none; the message names `path`, the module.
        """
        raise AdapterError(f"{path}: {self.no_sum}, so it cannot be combined")

    def drop(self, x: Tensor) -> Tensor | None:
        """Return x with dropout, or None if dropout is inactive."""
        return F.dropout(x, self.dropout) if self.drops else None

    @property
    def drops(self) -> bool:
        """Whether dropout is currently active."""
        return self.training and self.dropout > 0

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move to a device like any module, but keep the factors' dtype."""
        before = {name: parameter.data for name, parameter in self.named_parameters()}
        super()._apply(fn, recurse)  # pyright: ignore[reportUnknownMemberType] - torch's is untyped
        for name, parameter in self.named_parameters():
            if parameter.dtype in LOW_PRECISION:
                parameter.data = before[name].to(parameter.device)
        return self

    def extra_repr(self) -> str:
        """Describe the adapter."""
        return f"{self.kind}, rank={self.rank}, scaling={self.scaling:g}, dropout={self.dropout:g}"
