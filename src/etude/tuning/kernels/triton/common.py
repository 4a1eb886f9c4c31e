# pyright: basic
"""What the kernels share: rounding, products, and how they are started.

The interpreter has its own ways: it cuts a float32 down to bfloat16 where a GPU rounds, takes small
ones for zero, and multiplies bfloat16 tiles as the integers that hold them. `rounded` and
`multiplied` mend that, and are the plain operation on a GPU: `INTERPRETED` is known when a kernel
is compiled.
"""

from __future__ import annotations

import os
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
"""Dtypes of numbers that there are kernels for; sums are float32 whichever it is."""

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


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:
    """Start a kernel on the device of its first argument, a tensor; no program, no start."""
    if 0 in grid:
        return
    # Said, so that no version of Triton has another mind: a product and a sum may be one
    # instruction but where bits must be those of the reference.
    options.setdefault("enable_fp_fusion", True)
    with torch.cuda.device_of(arguments[0]):
        kernel[grid](*arguments, **options)


def power(size: int, least: int = 1) -> int:
    """Return the smallest power of two that is neither below `size` nor below `least`."""
    return max(least, 1 << max(0, size - 1).bit_length())


def refuse_unfit(**tensors: Tensor) -> None:
    """Refuse tensors that the kernels would read wrongly.

    Raises:
        TypeError: a dtype that there is no kernel for.
        ValueError: one is not contiguous, or lies on another device than the first.
    """
    first = next(iter(tensors.values()))
    for name, tensor in tensors.items():
        if tensor.dtype not in DTYPES:
            raise TypeError(f"{name} is {tensor.dtype}; float32, bfloat16 or float16 is wanted")
        if not tensor.is_contiguous():
            raise ValueError(f"{name}, {tuple(tensor.shape)}, must be contiguous")
        if tensor.device != first.device:
            raise ValueError(f"{name} is on {tensor.device}, the others on {first.device}")
