"""A frozen Linear whose weight is stored in 4 bits and decoded when it is used.

    x ──────────────────────────▶ y = x Ŵᵀ + b          Ŵ = decode(codes, absmax), (out, in)
    codes, absmax ──decode──▶ Ŵ ─┘     (dropped)
    dx = g Ŵ                                             decoded again in the backward pass

Nothing of the size of W outlives the product: what autograd keeps is the module, not Ŵ. The
gradient goes to x alone; W is frozen (Dettmers et al. 2023, "QLoRA", eq. 5).
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from etude.errors import ModelError
from etude.tuning.kernels import ops
from etude.tuning.kernels.codebooks import DYNAMIC_BLOCK
from etude.tuning.specs import QuantSpec

_SCALES = ("absmax", "absmax_scales", "absmax_offset")
"""Buffers that stay float32 whatever dtype the model is moved to: the codes mean nothing else."""


class QuantLinear(nn.Module):
    """Linear with a frozen NF4 weight, (out_features, in_features).

    Blocks run through the weight row after row; one that starts near the end of a row goes on in
    the next. With double quantisation the scales are codes too.

    Buffers, all in `state_dict`:
        codes: uint8 (ceil(out * in / 2),).
        absmax: float32 (blocks,); with double quantisation uint8 (blocks,), and
        absmax_scales: float32 (ceil(blocks / 256),), absmax_offset: float32 ().
        bias: (out_features,), frozen, or None.

    Attributes:
        in_features, out_features: sizes of x and y.
        block: weights that share a scale.
        double_quantized: whether the scales are quantised too.
        compute_dtype: dtype of the product; follows `.to(dtype)`, which leaves the codes alone.
    """

    codes: Tensor
    absmax: Tensor
    absmax_scales: Tensor
    absmax_offset: Tensor
    bias: Tensor | None

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
        """Make a layer without a weight; `from_weight` and `empty` are what to call."""
        super().__init__()
        if quant.kind != "nf4":
            raise ValueError(f"QuantLinear holds NF4 weights, not {quant.kind!r}")
        self.in_features = in_features
        self.out_features = out_features
        self.spec = quant
        self.block = quant.block
        self.double_quantized = quant.double
        self.compute_dtype = compute_dtype
        self._filling: _Filling | None = None
        self._keep_dense = False
        self._dense: Tensor | None = None

        count = in_features * out_features
        blocks = -(-count // self.block)

        def buffer(name: str, *shape: int, dtype: torch.dtype) -> None:
            self.register_buffer(name, torch.empty(shape, dtype=dtype, device=device))

        buffer("codes", -(-count // 2), dtype=torch.uint8)
        buffer("absmax", blocks, dtype=torch.uint8 if self.double_quantized else torch.float32)
        if self.double_quantized:
            buffer("absmax_scales", -(-blocks // DYNAMIC_BLOCK), dtype=torch.float32)
            buffer("absmax_offset", dtype=torch.float32)
        self.register_buffer("bias", None if bias is None else bias.detach().to(compute_dtype))

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
        codes, absmax = ops.quantize_nf4(weight.detach(), quant.block)
        layer.codes.copy_(codes)
        layer._set_absmax(absmax)
        return layer

    @classmethod
    def empty(
        cls,
        in_features: int,
        out_features: int,
        quant: QuantSpec,
        compute_dtype: torch.dtype,
        bias: Tensor | None = None,
    ) -> Self:
        """Return a layer whose weight comes by `fill_rows`, so that it never stands whole.

        Until the last row has come it holds the codes, one float32 scale a block, and less than
        two blocks of weights.
        """
        layer = cls(in_features, out_features, quant, compute_dtype, bias)
        layer._filling = _Filling(layer)
        return layer

    @torch.no_grad()
    def fill_rows(self, start_row: int, rows: Tensor) -> None:
        """Quantize the next rows of the weight; the bytes are those of `from_weight`.

        A block that straddles two calls waits in a buffer for its other half. The scales are
        quantised once, over all of them, when the last row has come: their mean and their blocks
        of 256 belong to the whole weight.

        Args:
            start_row: index of the first of them; rows come in order, none twice.
            rows: (count, in_features), float32, bfloat16 or float16.

        Raises:
            ModelError: a row holds NaN or infinity.
        """
        if self._filling is None:
            raise RuntimeError("this layer's weight is complete; no more rows are wanted")
        self._filling.add(start_row, rows)
        if self._filling.rows == self.out_features:
            absmax = self._filling.absmax
            self._filling = None
            self._set_absmax(absmax)

    def finish(self) -> None:
        """Check that every row has come (the last one completes the weight by itself).

        Raises:
            ModelError: rows are missing.
        """
        if self._filling is not None:
            raise ModelError(
                f"the weight is incomplete: {self._filling.rows} of {self.out_features} rows came"
            )

    @torch.no_grad()
    def overwrite(self, weight: Tensor) -> None:
        """Quantize another weight, (out, in), in place of this one."""
        codes, absmax = ops.quantize_nf4(weight.detach(), self.block)
        self.codes.copy_(codes)
        self._set_absmax(absmax)
        self._dense = None

    def _set_absmax(self, absmax: Tensor) -> None:
        if not self.double_quantized:
            self.absmax.copy_(absmax)
            return
        codes, scales, offset = ops.quantize_absmax(absmax)
        self.absmax.copy_(codes)
        self.absmax_scales.copy_(scales)
        self.absmax_offset.copy_(offset)

    @property
    def scales(self) -> Tensor:
        """The scale of each block, float32 (blocks,), decoded where they are quantised."""
        if not self.double_quantized:
            return self.absmax
        return ops.dequantize_absmax(self.absmax, self.absmax_scales, self.absmax_offset)

    @property
    def quantized_bytes(self) -> int:
        """Bytes that the weight takes: codes and scales."""
        tensors = [self.codes, self.absmax]
        if self.double_quantized:
            tensors += [self.absmax_scales, self.absmax_offset]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    @torch.no_grad()
    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """Return the weight that the codes stand for, (out_features, in_features) in `dtype`."""
        self.finish()
        shape = (self.out_features, self.in_features)
        return ops.dequantize_nf4(self.codes, self.scales, shape, self.block, dtype)

    def weight_for_compute(self) -> Tensor:
        """Return the decoded weight in the dtype of the product; the caller lets go of it."""
        if not self._keep_dense:
            return self.dequantize(self.compute_dtype)
        if self._dense is None:
            self._dense = self.dequantize(self.compute_dtype)
        return self._dense

    def keep_dense(self, keep: bool) -> None:
        """Keep the decoded weight from its next use on, or drop it; see `dense_weights`."""
        self._keep_dense = keep
        self._dense = None

    def forward(self, x: Tensor) -> Tensor:
        """Return x Ŵᵀ + b: (..., in_features) to (..., out_features), in the dtype of x."""
        return _frozen_product(x.to(self.compute_dtype), self).to(x.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move to a device or dtype as any module, but never change what the codes mean."""
        before = {name: getattr(self, name) for name in _SCALES if hasattr(self, name)}
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
            f"bias={self.bias is not None}, nf4, block={self.block}, "
            f"double_quantized={self.double_quantized}, compute_dtype={self.compute_dtype}"
        )


@contextmanager
def dense_weights(model: nn.Module) -> Generator[None]:
    """Within, every quantised layer of `model` decodes its weight once and keeps it.

    For generation: one token a pass costs more in decoding than in products. Memory rises to that
    of the unquantised model and falls again at the end; results are the same bits.
    """
    layers = [module for module in model.modules() if isinstance(module, QuantLinear)]
    try:
        for layer in layers:
            layer.keep_dense(True)
        yield
    finally:
        for layer in layers:
            layer.keep_dense(False)


class _Filling:
    """The state of a weight that is coming row by row."""

    def __init__(self, layer: QuantLinear) -> None:
        self.rows = 0
        self.absmax = torch.empty(layer.absmax.numel())
        self._codes = layer.codes
        self._shape = layer.out_features, layer.in_features
        self._block = layer.block
        self._done = 0  # weights quantised so far, a multiple of the block
        self._waiting = torch.empty(0)  # the beginning of a block, float32

    def add(self, start_row: int, rows: Tensor) -> None:
        out_features, in_features = self._shape
        count = len(rows)
        if start_row != self.rows or start_row + count > out_features or count == 0:
            raise ValueError(
                f"rows {start_row}:{start_row + count} of {out_features} do not follow row "
                f"{self.rows - 1}"
            )
        if tuple(rows.shape) != (count, in_features):
            raise ValueError(f"rows are {tuple(rows.shape)}, not {(count, in_features)}")
        ops.refuse_non_finite(rows, first_row=start_row)
        self.rows += count

        values = rows.reshape(-1)
        if self._waiting.numel():
            # Complete the block that the last call began, so that the rest needs no copy.
            missing = min(self._block - self._waiting.numel(), values.numel())
            self._waiting = torch.cat([self._waiting, values[:missing].float()])
            values = values[missing:]
            if self._waiting.numel() == self._block or self._last:
                self._quantize(self._waiting)
                self._waiting = self._waiting[:0]
        ready = values.numel() if self._last else values.numel() - values.numel() % self._block
        if ready:
            self._quantize(values[:ready])
        if ready < values.numel():
            self._waiting = values[ready:].float().clone()

    @property
    def _last(self) -> bool:
        return self.rows == self._shape[0]

    def _quantize(self, values: Tensor) -> None:
        codes, absmax = ops.quantize_nf4(values, self._block)
        self._codes[self._done // 2 :][: codes.numel()] = codes
        self.absmax[self._done // self._block :][: absmax.numel()] = absmax
        self._done += values.numel()


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
