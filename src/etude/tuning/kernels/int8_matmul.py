"""Products of 8-bit integers: rows of numbers to codes, and sums of products back to numbers.

    codes_tk = round(x_tk c_k / s_t)      s_t = max_k |x_tk c_k| / 127
    y_tn     = sums_tn s_t c_n + add_tn

`_rows_plain` and `_scaled_plain` define the two; on the processor's float32 and bfloat16 tensors
the C++ kernels do them in one pass over memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from etude.tuning.kernels import native
from etude.tuning.kernels.codebooks import INT8_LARGEST
from etude.tuning.kernels.fused import has_kernels

Codes = tuple[Tensor, Tensor]
"""Codes, (T, K) int8, and the scale of each row, (T,) float32."""

OUTLIERS = 16
"""Columns of an input that keep their numbers. Few columns hold the largest values of nearly every
token, and set the scale for all others: on SmolLM2 and GSM8K the loss rises by 2.1 % if they are
rounded, too, and by less than 0.3 % if 8 to 32 are not (`benchmarks/int8_compute.py`)."""


@dataclass(frozen=True)
class RoundedRows:
    """An input of integer products: most columns in 8 bits, the largest as they are."""

    codes: Codes
    """0 in the columns that keep their numbers."""
    outliers: Tensor
    """Which those are, int64 (n,), n at most `OUTLIERS`."""
    kept: Tensor
    """(T, n), their numbers."""


def rounded_rows(x: Tensor) -> RoundedRows:
    """Round x, (T, K), for products with 8-bit weights; see `RoundedRows`."""
    # At most a quarter: a thin matrix is not to be all outliers.
    count = min(OUTLIERS, x.shape[1] // 4)
    outliers = column_peaks(x).topk(count).indices
    columns = torch.ones(x.shape[1], device=x.device).index_fill_(0, outliers, 0.0)
    return RoundedRows(int8_rows(x, columns), outliers, x.index_select(1, outliers))


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


def column_peaks(x: Tensor) -> Tensor:
    """Return the largest magnitude of each column of x, (T, K), as (K,) float32."""
    if not has_kernels(x):
        return x.abs().amax(0).float()
    out = torch.empty(x.shape[1])
    native.call("column_peaks", x.dtype, x, x.stride(0), out, len(x), x.shape[1])
    return out


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
