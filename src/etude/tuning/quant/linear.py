"""Quantised Linear: base class of frozen layers with a quantised weight, decoded on use.

    x ──────────────────────────▶ y = x Ŵᵀ + b          Ŵ = decode(stored), (out, in)
    stored ──decode──▶ Ŵ ────────┘     (dropped)
    dx = g Ŵ                                             decoded again in the backward pass

No tensor of the size of W outlives the product: autograd saves the module, not Ŵ. Only x has a
gradient; W is frozen (Dettmers et al. 2023, "QLoRA", eq. 5). The subclasses differ in the storage
of W: `block.py` (4 bits), `int8.py` (8 bits), `gguf.py` (GGUF blocks).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn

from etude.core.errors import ModelError
from etude.tuning.config.sections.quant import QuantSpec


class QuantLinear(nn.Module, ABC):
    """Linear with a frozen weight, (out_features, in_features), quantised.

    Attributes:
        in_features, out_features: sizes of x and y.
        spec: quantisation of the weight.
        compute_dtype: dtype of the product; follows `.to(dtype)`, which does not change the codes.
        bias: (out_features,), frozen, a buffer; or None.
        from_conv1d: whether it took the place of a `Conv1D`, whose weight is (in, out) on disk.
    """

    float32_buffers: ClassVar[tuple[str, ...]] = ()
    """Buffers that stay float32 when the model is moved to another dtype."""

    bias: Tensor | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        quant: QuantSpec,
        compute_dtype: torch.dtype,
        bias: Tensor | None = None,
    ) -> None:
        """Create a layer without a weight; use `build.py` instead."""
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.spec = quant
        self.compute_dtype = compute_dtype
        self.from_conv1d = False
        self._keep_dense = False
        self._dense: Tensor | None = None
        self._place: Tensor | None = None
        self.register_buffer("bias", None if bias is None else bias.detach().to(compute_dtype))

    @abstractmethod
    def fill_rows(self, start_row: int, rows: Tensor) -> None:
        """Set the next rows of the weight, so that it is never whole in memory.

        Args:
            start_row: index of the first row; rows must arrive in order, each once.
            rows: (count, in_features), float32, bfloat16 or float16.

        Raises:
            ModelError: a row contains NaN or infinity.
        """

    @abstractmethod
    def finish(self) -> None:
        """Check that every row has arrived (the last one completes the weight).

        Raises:
            ModelError: rows are missing.
        """

    @abstractmethod
    def overwrite(self, weight: Tensor) -> None:
        """Replace the weight by quantising another one, (out, in)."""

    @property
    @abstractmethod
    def quantized_bytes(self) -> int:
        """Size of the weight in bytes: codes and scales."""

    @abstractmethod
    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """Return the decoded weight, (out_features, in_features) in `dtype`."""

    @abstractmethod
    def storage(self) -> str:
        """Describe how the weight is stored, for `repr`."""

    def weight_for_compute(self) -> Tensor:
        """Return the decoded weight in the compute dtype; the caller releases it."""
        if not self._keep_dense:
            return self.dequantize(self.compute_dtype)
        if self._dense is None:
            decoded = self.dequantize(self.compute_dtype)
            self._dense = decoded if self._place is None else self._place.copy_(decoded)
        return self._dense

    @property
    def keeps_dense(self) -> bool:
        """Whether the decoded weight is cached."""
        return self._keep_dense

    def keep_dense(self, keep: bool, place: Tensor | None = None) -> None:
        """Cache the decoded weight from its next use on, or drop it; see `dense_weights`.

        Args:
            keep: whether to cache it.
            place: (out_features, in_features) in the compute dtype, to hold it; None: memory of its
                own.
        """
        self._keep_dense = keep
        self._dense = None
        self._place = place

    def forward(self, x: Tensor) -> Tensor:
        """Return x Ŵᵀ + b: (..., in_features) to (..., out_features), in the dtype of x."""
        # The view is made here: one made by the function could not be changed in place, as
        # some models do with what a Linear returns.
        rows = x.to(self.compute_dtype).reshape(-1, x.shape[-1])
        return _frozen_product(rows, self).view(*x.shape[:-1], -1).to(x.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move to a device or dtype like any module, without changing codes and scales."""
        before = {name: getattr(self, name) for name in self.float32_buffers if hasattr(self, name)}
        super()._apply(fn, recurse)  # pyright: ignore[reportUnknownMemberType] - torch's is untyped
        for name, buffer in before.items():
            moved: Tensor = getattr(self, name)
            if moved.dtype != buffer.dtype:
                setattr(self, name, buffer.to(moved.device))
        self.compute_dtype = fn(torch.empty(0, dtype=self.compute_dtype)).dtype
        self._dense = self._place = None
        return self

    def extra_repr(self) -> str:
        """Describe the layer, as torch's Linear does."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}, {self.storage()}, compute_dtype={self.compute_dtype}"
        )


class CodedLinear(QuantLinear):
    """Base class of layers that Etude quantises itself, as codes and scales."""

    @abstractmethod
    def __init__(
        self,
        in_features: int,
        out_features: int,
        quant: QuantSpec,
        compute_dtype: torch.dtype,
        bias: Tensor | None = None,
        *,
        device: torch.device | str | None = None,
    ) -> None:
        """Create a layer without a weight, its buffers on `device`."""
        super().__init__(in_features, out_features, quant, compute_dtype, bias)

    @classmethod
    def from_weight(
        cls,
        weight: Tensor,
        quant: QuantSpec,
        compute_dtype: torch.dtype,
        bias: Tensor | None = None,
    ) -> Self:
        """Quantize `weight`, (out, in), float32, bfloat16 or float16.

        Raises:
            ModelError: the weight contains NaN or infinity.
        """
        out_features, in_features = weight.shape
        layer = cls(in_features, out_features, quant, compute_dtype, bias, device=weight.device)
        layer.overwrite(weight)
        return layer

    @classmethod
    def empty(
        cls,
        in_features: int,
        out_features: int,
        quant: QuantSpec,
        compute_dtype: torch.dtype,
        bias: Tensor | None = None,
        *,
        device: torch.device | None = None,
    ) -> Self:
        """Return a layer on `device` to fill with `fill_rows`, without the whole weight in memory.

        Rows may be on another device than the layer: they are quantised there, and codes and scales
        are copied.
        """
        layer = cls(in_features, out_features, quant, compute_dtype, bias, device=device)
        layer.expect_rows()
        return layer

    @abstractmethod
    def expect_rows(self) -> None:
        """Prepare for `fill_rows`."""

    @torch.no_grad()
    def fill_codes(self, tensors: dict[str, Tensor]) -> None:
        """Set codes and scales made by another program, by buffer names.

        Raises:
            ModelError: a tensor has a wrong size or dtype, or a scale is not finite.
        """
        for name, value in tensors.items():
            own: Tensor = getattr(self, name)
            if (own.numel(), own.dtype) != (value.numel(), value.dtype):
                raise ModelError(
                    f"{name}: expected {own.numel()} elements of {own.dtype}, got "
                    f"{value.numel()} of {value.dtype}"
                )
            if value.is_floating_point() and not value.isfinite().all():
                raise ModelError(f"{name} contains values that are not finite")
            own.copy_(value.view(own.shape))
        self._complete()

    @abstractmethod
    def _complete(self) -> None:
        """Mark the weight as complete."""


@contextmanager
def dense_weights(model: nn.Module) -> Generator[None]:
    """Context manager: every quantised layer of `model` decodes its weight once and caches it.

    For generation, where decoding would cost more than the products of one token. Memory rises to
    that of the unquantised model and falls again at the end; results are bit-identical.

    On a processor all of them lie in one piece of memory, which the C library gives back to the
    system whole. Hundreds of pieces would leave holes in its heap between what else was made.
    """
    every = [module for module in model.modules() if isinstance(module, QuantLinear)]
    layers = [layer for layer in every if not layer.keeps_dense]
    try:
        for layer, place in zip(layers, _places(layers), strict=True):
            layer.keep_dense(True, place)
        yield
    finally:
        for layer in layers:
            layer.keep_dense(False)


def _places(layers: Sequence[QuantLinear]) -> list[Tensor | None]:
    """Return a place for each layer's decoded weight; None off the processor."""
    if any(buffer.device.type != "cpu" for layer in layers for buffer in layer.buffers()):
        return [None] * len(layers)
    sizes: dict[torch.dtype, int] = {}
    for layer in layers:
        size = layer.in_features * layer.out_features
        sizes[layer.compute_dtype] = sizes.get(layer.compute_dtype, 0) + size
    free = {dtype: torch.empty(size, dtype=dtype) for dtype, size in sizes.items()}
    places: list[Tensor | None] = []
    for layer in layers:
        shape = layer.out_features, layer.in_features
        places.append(free[layer.compute_dtype][: math.prod(shape)].view(shape))
        free[layer.compute_dtype] = free[layer.compute_dtype][math.prod(shape) :]
    return places


class _FrozenProduct(torch.autograd.Function):
    """y = x Ŵᵀ + b and dx = g Ŵ, decoding Ŵ each time; x is not saved, as W has no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: QuantLinear) -> Tensor:
        ctx.layer = layer
        return nn.functional.linear(x, layer.weight_for_compute(), layer.bias)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, None]:
        if not ctx.needs_input_grad[0]:
            return None, None
        return grad_outputs[0] @ ctx.layer.weight_for_compute(), None


_frozen_product = cast(
    "Callable[[Tensor, QuantLinear], Tensor]",
    _FrozenProduct.apply,  # pyright: ignore[reportUnknownMemberType] - torch's is untyped
)
