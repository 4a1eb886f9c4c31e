"""8-bit Linear: uniform codes, one scale per row of the weight.

    code = round(w · 127 / absmax)        ŵ = code · absmax / 127        absmax: of the row

Dettmers et al. 2022, "LLM.int8()". Products use the decoded weights or, with `quant.compute: int8`,
integer arithmetic: the rows of the other operand are rounded to 8 bits as well, each scaled by its
own largest magnitude,

    y_tn ≈ c_t s_n Σ_k X̂_tk Ŵ_nk       X̂_t = round(x_t / c_t),  c_t = max|x_t| / 127
    dx_tk ≈ d_t Σ_n Ĝ_tn Ŵ_nk          Ĝ_t = round(g_t ∘ s / d_t): s is inside the sum here

with s = absmax / 127, and the few columns of x with its largest values are multiplied in floating
point (section 3.2 there; here they are selected anew for each input). Sums of products of 8-bit
integers are exact in 32 bits up to 133,000 terms.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from etude.core.errors import ModelError
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.kernels import ops
from etude.tuning.kernels.codebooks import INT8_LARGEST
from etude.tuning.kernels.int8_matmul import RoundedRows, int8_rows, int32_scaled, rounded_rows
from etude.tuning.quant.linear import CodedLinear

# A private name of PyTorch, used by its own quantisation library (torchao).
_int_mm = cast("Callable[[Tensor, Tensor], Tensor]", cast("Any", torch)._int_mm)


class Int8Linear(CodedLinear):
    """Linear with a frozen 8-bit weight, (out_features, in_features).

    Buffers, all in `state_dict`:
        codes: int8 (out_features, in_features).
        absmax: float32 (out_features,).
        bias: (out_features,), frozen, or None.
    """

    float32_buffers = ("absmax",)

    codes: Tensor
    absmax: Tensor

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
        if quant.kind != "int8":
            raise ValueError(f"Int8Linear holds int8 weights, not {quant.kind}")
        super().__init__(in_features, out_features, quant, compute_dtype, bias)
        shape = out_features, in_features
        self._rows = out_features
        self.register_buffer("codes", torch.empty(shape, dtype=torch.int8, device=device))
        self.register_buffer("absmax", torch.empty(out_features, device=device))

    @torch.no_grad()
    def fill_rows(self, start_row: int, rows: Tensor) -> None:
        """Quantize the next rows of the weight; the bytes are those of `from_weight`."""
        stop = start_row + len(rows)
        if start_row != self._rows or stop > self.out_features or len(rows) == 0:
            raise ValueError(
                f"rows {start_row}:{stop} of {self.out_features} do not follow row {self._rows - 1}"
            )
        ops.refuse_non_finite(rows, first_row=start_row)
        codes, absmax = ops.quantize_int8(rows)
        self.codes[start_row:stop] = codes
        self.absmax[start_row:stop] = absmax
        self._rows = stop

    def expect_rows(self) -> None:
        """Prepare for `fill_rows`."""
        self._rows = 0

    def _complete(self) -> None:
        self._rows = self.out_features

    def finish(self) -> None:
        """Check that every row has arrived."""
        if self._rows != self.out_features:
            raise ModelError(f"the weight is incomplete: {self._rows} of {self.out_features} rows")

    @torch.no_grad()
    def overwrite(self, weight: Tensor) -> None:
        """Replace the weight by quantising another one, (out, in)."""
        codes, absmax = ops.quantize_int8(weight.detach())
        self.codes.copy_(codes)
        self.absmax.copy_(absmax)
        self._dense = None

    @property
    def quantized_bytes(self) -> int:
        """Size of the weight in bytes: codes and scales."""
        return self.codes.nbytes + self.absmax.nbytes

    @torch.no_grad()
    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """Return the decoded weight, (out_features, in_features) in `dtype`."""
        self.finish()
        return ops.dequantize_int8(self.codes, self.absmax, dtype)

    @property
    def computes_int8(self) -> bool:
        """Whether products use integer arithmetic."""
        return self.spec.compute == "int8"

    def product(
        self,
        x: RoundedRows,
        add: Tensor | None = None,
        *,
        with_bias: bool = True,
        thin: tuple[Tensor, Tensor] | None = None,
        change: Tensor | None = None,
    ) -> Tensor:
        """Return x Ŵᵀ + b + add + h Bᵀ, (T, out), by integer products.

        Args:
            x: the rounded input; its outlier columns are multiplied in floating point.
            add: (T, out), or None.
            with_bias: False leaves b out.
            thin: h, (T, r), and B, (out, r), in the dtype of the result, or None: the adapter's
                part, added to the outlier columns' part.
            change: another (T, out) that is added there.
        """
        dtype = x.kept.dtype
        codes, scales = x.codes
        W = (self.codes.index_select(1, x.outliers) * self._scales()[:, None]).to(dtype)
        left, right = x.kept, W
        if thin is not None:
            left, right = torch.cat([left, thin[0]], 1), torch.cat([right, thin[1]], 1)
        # An adapter's part is small: it is added before the sum is rounded (`adapters.product`).
        beside = left @ right.T if change is None else torch.addmm(change, left, right.T)
        y = int32_scaled(_int_mm(codes, self.codes.T), scales, self._scales(), dtype, beside)
        for last in (self.bias if with_bias else None, add):
            y = y if last is None else y.add_(last)
        return y

    def input_gradient(self, g: Tensor, add: Tensor | None = None) -> Tensor:
        """Return g Ŵ + add, (T, in), by integer products, in the dtype of g, (T, out)."""
        codes, scales = int8_rows(g.contiguous(), self._scales())
        sums = _int_mm(codes, self.codes)
        return int32_scaled(sums, scales, None, g.dtype, add)

    def _scales(self) -> Tensor:
        return self.absmax / INT8_LARGEST

    def forward(self, x: Tensor) -> Tensor:
        """Return x Ŵᵀ + b: (..., in_features) to (..., out_features), in the dtype of x."""
        if not self.computes_int8:
            return super().forward(x)
        rows = x.to(self.compute_dtype).reshape(-1, x.shape[-1])
        return _int8_product(rows, self).view(*x.shape[:-1], -1).to(x.dtype)

    def storage(self) -> str:
        """Describe how the weight is stored."""
        return "int8, one scale per row" + (", integer products" if self.computes_int8 else "")


class _Int8Product(torch.autograd.Function):
    """Autograd function of the layer without an adapter, on rows: (T, in) to (T, out)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Int8Linear) -> Tensor:
        ctx.layer = layer
        return layer.product(rounded_rows(x))

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, None]:
        if not ctx.needs_input_grad[0]:
            return None, None
        return ctx.layer.input_gradient(grad_outputs[0]), None


_int8_product = cast(
    "Callable[[Tensor, Int8Linear], Tensor]",
    _Int8Product.apply,  # pyright: ignore[reportUnknownMemberType] - torch's is untyped
)
