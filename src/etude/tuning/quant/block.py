"""Block-wise 4-bit Linear: 16 levels, one scale per block, optional double quantisation.

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

    Blocks are consecutive in row-major order; one may continue from the end of a row into the next
    row. With double quantisation the scales are codes too.

    Buffers, all in `state_dict`:
        codes: uint8 (ceil(out * in / 2),).
        absmax: float32 (blocks,); with double quantisation uint8 (blocks,), and
        absmax_scales: float32 (ceil(blocks / 256),), absmax_offset: float32 ().
        bias: (out_features,), frozen, or None.

    Attributes:
        block: number of weights that share a scale.
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
        """Create a layer without a weight; use `from_weight` or `empty` instead."""
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

        A block that straddles two calls is buffered until it is complete. The scales are quantised
        together once the last row has arrived: their mean and their blocks of 256 span the whole
        weight.
        """
        if self._filling is None:
            raise RuntimeError("this layer's weight is already complete")
        self._filling.add(start_row, rows)
        if self._filling.rows == self.out_features:
            absmax = self._filling.absmax
            self._filling = None
            self._set_absmax(absmax)

    def expect_rows(self) -> None:
        """Prepare for `fill_rows`.

        Until the last row has arrived the layer holds the codes, one float32 scale per block, and
        less than two blocks of weights.
        """
        self._filling = _Filling(self)

    def _complete(self) -> None:
        self._filling = None

    def finish(self) -> None:
        """Check that every row has arrived (the last one completes the weight)."""
        if self._filling is not None:
            raise ModelError(
                f"the weight is incomplete: {self._filling.rows} of {self.out_features} rows"
            )

    @torch.no_grad()
    def overwrite(self, weight: Tensor) -> None:
        """Replace the weight by quantising another one, (out, in)."""
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
        """The scale of each block, float32 (blocks,), decoded if they are quantised."""
        if not self.double_quantized:
            return self.absmax
        return ops.dequantize_absmax(self.absmax, self.absmax_scales, self.absmax_offset)

    @property
    def quantized_bytes(self) -> int:
        """Size of the weight in bytes: codes and scales."""
        tensors = [self.codes, self.absmax]
        if self.double_quantized:
            tensors += [self.absmax_scales, self.absmax_offset]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    @torch.no_grad()
    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """Return the decoded weight, (out_features, in_features) in `dtype`."""
        self.finish()
        if gpu.takes(self.codes):
            # Into memory that the allocator has just freed from the previous layer: in effect a
            # scratch buffer shared by all weights of a size.
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
        """Return whether to multiply `rows`, (T, in) or (T, out), by the codes directly.

        True on a GPU for few rows, when memory bandwidth dominates: a weight is half a byte.
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
        """Return rows Ŵᵀ + b + add + s · h Bᵀ, (T, out), if `multiplies_coded`.

        Args:
            rows: (T, in).
            add: (T, out), or None.
            with_bias: False leaves b out.
            low: h, (T, r), B, (out, r), and s; or None.
        """
        self.finish()
        return gpu.coded_product(rows, self._coded, self.bias if with_bias else None, add, low)

    def coded_gradient(self, g: Tensor, add: Tensor | None = None) -> Tensor:
        """Return g Ŵ + add, (T, in), if `multiplies_coded`."""
        self.finish()
        return gpu.coded_gradient(g, self._coded, add)

    def storage(self) -> str:
        """Describe how the weight is stored."""
        return f"{self.spec.kind}, block={self.block}, double_quantized={self.double_quantized}"


class _Filling:
    """State of a weight that is filled row by row."""

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
            # Complete the block begun by the last call, so that the rest needs no copy.
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
