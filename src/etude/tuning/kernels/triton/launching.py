# pyright: basic
"""How kernels are started: on what, with which tiles, and what they refuse."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
"""Dtypes of numbers that there are kernels for; sums are float32 whichever it is."""


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
