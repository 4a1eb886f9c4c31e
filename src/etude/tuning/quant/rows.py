"""A frozen Linear in 8 bits: uniform codes, a scale a row of the weight.

    code = round(w · 127 / absmax)        ŵ = code · absmax / 127        absmax: of the row

Dettmers et al. 2022, "LLM.int8()", section 2.1; of that paper the storage alone, as the products
here are those of decoded weights.
"""

from __future__ import annotations

import torch
from torch import Tensor

from etude.errors import ModelError
from etude.tuning.kernels import ops
from etude.tuning.quant.linear import CodedLinear
from etude.tuning.specs import QuantSpec


class RowLinear(CodedLinear):
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
        """Make a layer without a weight; `from_weight` and `empty` are what to call."""
        if quant.kind != "int8":
            raise ValueError(f"RowLinear holds int8 weights, not {quant.kind}")
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
        """Wait for `fill_rows`."""
        self._rows = 0

    def _complete(self) -> None:
        self._rows = self.out_features

    def finish(self) -> None:
        """Check that every row has come."""
        if self._rows != self.out_features:
            raise ModelError(
                f"the weight is incomplete: {self._rows} of {self.out_features} rows came"
            )

    @torch.no_grad()
    def overwrite(self, weight: Tensor) -> None:
        """Quantize another weight, (out, in), in place of this one."""
        codes, absmax = ops.quantize_int8(weight.detach())
        self.codes.copy_(codes)
        self.absmax.copy_(absmax)
        self._dense = None

    @property
    def quantized_bytes(self) -> int:
        """Bytes that the weight takes: codes and scales."""
        return self.codes.nbytes + self.absmax.nbytes

    @torch.no_grad()
    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """Return the weight that the codes stand for, (out_features, in_features) in `dtype`."""
        self.finish()
        return ops.dequantize_int8(self.codes, self.absmax, dtype)

    def storage(self) -> str:
        """Describe how the weight is stored."""
        return "int8, a scale a row"
