"""A frozen Linear in 4 bits: codes of 16 levels, a scale a block, scales in 8 bits if asked.

    W (out, in) ──row after row──▶ blocks of 32 to 4096 ──▶ codes, absmax
    absmax ──minus its mean, blocks of 256──▶ codes of 8 bits, scales, offset    (double)

Formats: NF4, FP4 and uniform int4, see `kernels/codebooks.py`. Dettmers et al. 2023, "QLoRA",
section 3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from etude.core.errors import ModelError
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.kernels import gpu, ops
from etude.tuning.kernels.codebooks import CODEBOOKS, DYNAMIC_BLOCK
from etude.tuning.quant.linear import CodedLinear


class BlockLinear(CodedLinear):
    """Linear with a frozen 4-bit weight, (out_features, in_features).

    Blocks run through the weight row after row; one that starts near the end of a row goes on in
    the next. With double quantisation the scales are codes too.

    Buffers, all in `state_dict`:
        codes: uint8 (ceil(out * in / 2),).
        absmax: float32 (blocks,); with double quantisation uint8 (blocks,), and
        absmax_scales: float32 (ceil(blocks / 256),), absmax_offset: float32 ().
        bias: (out_features,), frozen, or None.

    Attributes:
        block: weights that share a scale.
        double_quantized: whether the scales are quantised too.
    """

    float32_buffers = ("absmax", "absmax_scales", "absmax_offset")

    codes: Tensor
    absmax: Tensor
    absmax_scales: Tensor
    absmax_offset: Tensor

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
        if quant.kind not in CODEBOOKS:
            raise ValueError(f"BlockLinear holds {', '.join(CODEBOOKS)} weights, not {quant.kind}")
        super().__init__(in_features, out_features, quant, compute_dtype, bias)
        self.block = quant.block
        self.double_quantized = quant.double
        self._filling: _Filling | None = None

        count = in_features * out_features
        blocks = -(-count // self.block)

        def buffer(name: str, *shape: int, dtype: torch.dtype) -> None:
            self.register_buffer(name, torch.empty(shape, dtype=dtype, device=device))

        buffer("codes", -(-count // 2), dtype=torch.uint8)
        buffer("absmax", blocks, dtype=torch.uint8 if self.double_quantized else torch.float32)
        if self.double_quantized:
            buffer("absmax_scales", -(-blocks // DYNAMIC_BLOCK), dtype=torch.float32)
            buffer("absmax_offset", dtype=torch.float32)

    @torch.no_grad()
    def fill_rows(self, start_row: int, rows: Tensor) -> None:
        """Quantize the next rows of the weight; the bytes are those of `from_weight`.

        A block that straddles two calls waits in a buffer for its other half. The scales are
        quantised once, over all of them, when the last row has come: their mean and their blocks
        of 256 belong to the whole weight.
        """
        if self._filling is None:
            raise RuntimeError("this layer's weight is complete; no more rows are wanted")
        self._filling.add(start_row, rows)
        if self._filling.rows == self.out_features:
            absmax = self._filling.absmax
            self._filling = None
            self._set_absmax(absmax)

    def expect_rows(self) -> None:
        """Wait for `fill_rows`.

        Until the last row has come the layer holds the codes, one float32 scale a block, and less
        than two blocks of weights.
        """
        self._filling = _Filling(self)

    def _complete(self) -> None:
        self._filling = None

    def finish(self) -> None:
        """Check that every row has come (the last one completes the weight by itself)."""
        if self._filling is not None:
            raise ModelError(
                f"the weight is incomplete: {self._filling.rows} of {self.out_features} rows came"
            )

    @torch.no_grad()
    def overwrite(self, weight: Tensor) -> None:
        """Quantize another weight, (out, in), in place of this one."""
        codes, absmax = ops.quantize_4bit(weight.detach(), self.block, self.spec.kind)
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
        if gpu.takes(self.codes):
            # Into memory that the allocator has just taken back from the layer before, in effect a
            # scratch buffer that all weights of a size share.
            return gpu.decoded(self._coded, dtype)
        shape = (self.out_features, self.in_features)
        return ops.dequantize_4bit(
            self.codes, self.scales, shape, self.block, self.spec.kind, dtype
        )

    @property
    def _coded(self) -> gpu.Coded:
        double = (self.absmax_scales, self.absmax_offset) if self.double_quantized else None
        shape = (self.out_features, self.in_features)
        return self.codes, self.absmax, double, shape, self.block, self.spec.kind

    def multiplies_coded(self, rows: Tensor) -> bool:
        """Return whether `rows`, (T, in) or (T, out), are best multiplied without a decoded weight.

        On a GPU, where they are few: then memory gives half a byte a weight.
        """
        shape = (self.out_features, self.in_features)
        return not self.keeps_dense and gpu.multiplies_coded(rows, shape)

    def coded_product(
        self,
        rows: Tensor,
        add: Tensor | None = None,
        *,
        with_bias: bool = True,
        low: tuple[Tensor, Tensor, float] | None = None,
    ) -> Tensor:
        """Return rows Ŵᵀ + b + add + s · h Bᵀ, (T, out), where `multiplies_coded` says so.

        Args:
            rows: (T, in).
            add: (T, out), or None.
            with_bias: False leaves b out.
            low: h, (T, r), B, (out, r), and s; or None.
        """
        self.finish()
        return gpu.coded_product(rows, self._coded, self.bias if with_bias else None, add, low)

    def coded_gradient(self, g: Tensor, add: Tensor | None = None) -> Tensor:
        """Return g Ŵ + add, (T, in), where `multiplies_coded` says so."""
        self.finish()
        return gpu.coded_gradient(g, self._coded, add)

    def storage(self) -> str:
        """Describe how the weight is stored."""
        return f"{self.spec.kind}, block={self.block}, double_quantized={self.double_quantized}"


class _Filling:
    """The state of a weight that is coming row by row."""

    def __init__(self, layer: BlockLinear) -> None:
        self.rows = 0
        self.absmax = torch.empty(layer.absmax.numel())
        self._codes = layer.codes
        self._shape = layer.out_features, layer.in_features
        self._block = layer.block
        self._kind = layer.spec.kind
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
        codes, absmax = ops.quantize_4bit(values, self._block, self._kind)
        self._codes[self._done // 2 :][: codes.numel()] = codes
        self.absmax[self._done // self._block :][: absmax.numel()] = absmax
        self._done += values.numel()
