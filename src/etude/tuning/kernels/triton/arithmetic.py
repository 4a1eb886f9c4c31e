# pyright: basic
"""Rounding and products that are the same on a GPU and in Triton's interpreter.

The interpreter has its own ways: it cuts a float32 down to bfloat16 where a GPU rounds, takes small
ones for zero, and multiplies bfloat16 tiles as the integers that hold them. `rounded` and
`multiplied` mend that, and are the plain operation on a GPU: `INTERPRETED` is known when a kernel
is compiled.
"""

from __future__ import annotations

import os

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")


@triton.jit
def rounded(x, dtype: tl.constexpr):
    """Return x, float32, in `dtype`, rounded to the nearest, ties to the even."""
    if INTERPRETED and dtype == tl.bfloat16:
        bits = x.to(tl.int32, bitcast=True)
        odd = (bits >> 16) & 1
        # NaN keeps its bits: what is added might carry it over into another number.
        bits = tl.where(x == x, bits + 0x7FFF + odd, bits)  # noqa: PLR0124
        return (bits >> 16).to(tl.int16).to(tl.bfloat16, bitcast=True)
    return x.to(dtype)


@triton.jit
def multiplied(a, b, sums):
    """Return sums + a b, (M, N) float32, of a (M, K) and b (K, N) of one dtype."""
    if INTERPRETED:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    # ieee: float32 is multiplied as float32, not as numbers of 10 bits.
    return tl.dot(a, b, sums, input_precision="ieee")
