"""Products of 8-bit integers: rows of numbers to codes, and sums of products back to numbers.

    codes_tk = round(x_tk c_k / s_t)      s_t = max_k |x_tk c_k| / 127
    y_tn     = sums_tn s_t c_n + add_tn

`_rows_plain` and `_scaled_plain` define the two; on the processor's float32 and bfloat16 tensors
the C++ kernels do them in one pass over memory.
"""

from __future__ import annotations

import torch
from torch import Tensor

from etude.tuning.kernels import native
from etude.tuning.kernels.codebooks import INT8_LARGEST
from etude.tuning.kernels.fused import has_kernels


Codes = tuple[Tensor, Tensor]
"""Codes, (T, K) int8, and the scale of each row, (T,) float32."""


def int8_rows(x: Tensor, columns: Tensor | None = None) -> Codes:
    """Return codes, (T, K) int8, and scales, (T,) float32, so that codes ∘ scale ≈ x ∘ columns.

    Args:
        x: (T, K), each row contiguous.
        columns: (K,) float32 to multiply each row with first, or None.
    """
    if not has_kernels(x):
        return _rows_plain(x, columns)
    codes, scales = torch.empty(x.shape, dtype=torch.int8), torch.empty(len(x))
    native.call(
        "int8_rows", x.dtype, x, x.stride(0), columns, codes, scales, len(x), x.shape[1]
    )  # fmt: skip
    return codes, scales


def int32_scaled(
    sums: Tensor,
    rows: Tensor,
    columns: Tensor | None,
    dtype: torch.dtype,
    add: Tensor | None = None,
) -> Tensor:
    """Return sums ∘ rows ∘ columns + add in `dtype`.

    Args:
        sums: (T, N) int32, contiguous.
        rows: (T,) float32, a factor for each row.
        columns: (N,) float32, one for each column, or None.
        dtype: of the result.
        add: (T, N) in `dtype`, or None.
    """
    out = torch.empty(sums.shape, dtype=dtype, device=sums.device)
    if not has_kernels(out):
        return _scaled_plain(sums, rows, columns, dtype, add)
    step = 0 if add is None else add.stride(0)
    native.call(
        "int32_scaled", dtype, sums, rows, columns, add, step, out, len(sums), sums.shape[1]
    )  # fmt: skip
    return out


def _rows_plain(x: Tensor, columns: Tensor | None) -> Codes:
    value = x.float() if columns is None else x.float() * columns
    top = value.abs().amax(1)
    inverse = torch.where(top > 0, INT8_LARGEST / top, 0.0)
    return (value * inverse[:, None]).round_().to(torch.int8), top / INT8_LARGEST


def _scaled_plain(
    sums: Tensor, rows: Tensor, columns: Tensor | None, dtype: torch.dtype, add: Tensor | None
) -> Tensor:
    value = sums.float() * rows[:, None]
    if columns is not None:
        value *= columns
    return (value if add is None else value + add).to(dtype)
