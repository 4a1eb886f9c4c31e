"""A frozen Linear whose weight is stored in few bits and decoded when it is used.

    x ──────────────────────────▶ y = x Ŵᵀ + b          Ŵ = decode(what is stored), (out, in)
    stored ──decode──▶ Ŵ ────────┘     (dropped)
    dx = g Ŵ                                             decoded again in the backward pass

Nothing of the size of W outlives the product: what autograd keeps is the module, not Ŵ. The
gradient goes to x alone; W is frozen (Dettmers et al. 2023, "QLoRA", eq. 5). How W is stored is
what the kinds of layer differ in: `block.py` (4 bits), `rows.py` (8 bits), `native.py` (GGUF).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn

from etude.core.errors import ModelError
from etude.tuning.config.sections.quant import QuantSpec


class QuantLinear(nn.Module, ABC):
    """Linear with a frozen weight, (out_features, in_features), in few bits.

    Attributes:
        in_features, out_features: sizes of x and y.
        spec: how the weight is held.
        compute_dtype: dtype of the product; follows `.to(dtype)`, which leaves the codes alone.
        bias: (out_features,), frozen, a buffer; or None.
    """

    float32_buffers: ClassVar[tuple[str, ...]] = ()
    """Buffers that stay float32 whatever dtype the model is moved to: codes mean nothing else."""

    bias: Tensor | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        quant: QuantSpec,
        compute_dtype: torch.dtype,
        bias: Tensor | None = None,
    ) -> None:
        """Make a layer without a weight; `make.py` has what to call."""
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.spec = quant
        self.compute_dtype = compute_dtype
        self._keep_dense = False
        self._dense: Tensor | None = None
        self.register_buffer("bias", None if bias is None else bias.detach().to(compute_dtype))

    @abstractmethod
    def fill_rows(self, start_row: int, rows: Tensor) -> None:
        """Take the next rows of the weight, so that it never stands whole.

        Args:
            start_row: index of the first of them; rows come in order, none twice.
            rows: (count, in_features), float32, bfloat16 or float16.

        Raises:
            ModelError: a row holds NaN or infinity.
        """

    @abstractmethod
    def finish(self) -> None:
        """Check that every row has come (the last one completes the weight by itself).

        Raises:
            ModelError: rows are missing.
        """

    @abstractmethod
    def overwrite(self, weight: Tensor) -> None:
        """Quantize another weight, (out, in), in place of this one."""

    @property
    @abstractmethod
    def quantized_bytes(self) -> int:
        """Bytes that the weight takes: codes and scales."""

    @abstractmethod
    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """Return the weight that is stored, (out_features, in_features) in `dtype`."""

    @abstractmethod
    def storage(self) -> str:
        """Describe how the weight is stored, for `repr`."""

    def weight_for_compute(self) -> Tensor:
        """Return the decoded weight in the dtype of the product; the caller lets go of it."""
        if not self._keep_dense:
            return self.dequantize(self.compute_dtype)
        if self._dense is None:
            self._dense = self.dequantize(self.compute_dtype)
        return self._dense

    @property
    def keeps_dense(self) -> bool:
        """Whether the decoded weight is kept."""
        return self._keep_dense

    def keep_dense(self, keep: bool) -> None:
        """Keep the decoded weight from its next use on, or drop it; see `dense_weights`."""
        self._keep_dense = keep
        self._dense = None

    def forward(self, x: Tensor) -> Tensor:
        """Return x Ŵᵀ + b: (..., in_features) to (..., out_features), in the dtype of x."""
        return _frozen_product(x.to(self.compute_dtype), self).to(x.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move to a device or dtype as any module, but never change what the codes mean."""
        before = {name: getattr(self, name) for name in self.float32_buffers if hasattr(self, name)}
        super()._apply(fn, recurse)  # pyright: ignore[reportUnknownMemberType] - torch's is untyped
        for name, buffer in before.items():
            moved: Tensor = getattr(self, name)
            if moved.dtype != buffer.dtype:
                setattr(self, name, buffer.to(moved.device))
        self.compute_dtype = fn(torch.empty(0, dtype=self.compute_dtype)).dtype
        self._dense = None
        return self

    def extra_repr(self) -> str:
        """Describe the layer, as torch's Linear does."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}, {self.storage()}, compute_dtype={self.compute_dtype}"
        )


class CodedLinear(QuantLinear):
    """A kind of layer that a weight is quantised into here, as codes and scales."""

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
        """Make a layer without a weight, its buffers on `device`."""
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
            ModelError: the weight holds NaN or infinity.
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
        """Return a layer on `device` whose weight comes by `fill_rows`: it never stands whole.

        Rows may lie on another device than the layer: they are quantised where they are, and codes
        and scales are copied.
        """
        layer = cls(in_features, out_features, quant, compute_dtype, bias, device=device)
        layer.expect_rows()
        return layer

    @abstractmethod
    def expect_rows(self) -> None:
        """Wait for `fill_rows`."""

    @torch.no_grad()
    def fill_codes(self, tensors: dict[str, Tensor]) -> None:
        """Take codes and scales as another program made them, by the names of the buffers.

        Raises:
            ModelError: one has another size or dtype, or a scale is not finite.
        """
        for name, value in tensors.items():
            own: Tensor = getattr(self, name)
            if (own.numel(), own.dtype) != (value.numel(), value.dtype):
                raise ModelError(
                    f"{name}: {value.numel()} numbers of {value.dtype}, but {own.numel()} of "
                    f"{own.dtype} are due"
                )
            if value.is_floating_point() and not value.isfinite().all():
                raise ModelError(f"{name} holds values that are not finite")
            own.copy_(value.view(own.shape))
        self._complete()

    @abstractmethod
    def _complete(self) -> None:
        """Take the weight as complete."""


@contextmanager
def dense_weights(model: nn.Module) -> Generator[None]:
    """Within, every quantised layer of `model` decodes its weight once and keeps it.

    For generation: one token a pass costs more in decoding than in products. Memory rises to that
    of the unquantised model and falls again at the end; results are the same bits.
    """
    every = [module for module in model.modules() if isinstance(module, QuantLinear)]
    layers = [layer for layer in every if not layer.keeps_dense]
    try:
        for layer in layers:
            layer.keep_dense(True)
        yield
    finally:
        for layer in layers:
            layer.keep_dense(False)


class _FrozenProduct(torch.autograd.Function):
    """y = x Ŵᵀ + b and dx = g Ŵ, decoding Ŵ each time; x is not kept, for W has no gradient."""

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
