"""The engine's inner loops on a GPU: Triton's kernels where they are there, else plain PyTorch.

`fused` and `ops` come here with what does not lie on the processor. The choice is made a tensor at
a time by `triton.takes`; the modules that import Triton are imported only when it says yes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from etude.tuning.kernels import fused_reference, reference, triton

takes = triton.takes
"""Whether a tensor's work is done by Triton's kernels."""


def rowwise(x: Tensor) -> Any:
    """Return the module that does norms, rotation and SwiGLU of x."""
    if not takes(x):
        return fused_reference
    from etude.tuning.kernels.triton import rows

    return rows


def normwise(x: Tensor) -> Any:
    """Return the module that does layer norms of sums, and GELU, of x."""
    if not takes(x):
        return fused_reference
    from etude.tuning.kernels.triton import norms

    return norms


def cross_entropy(logits: Tensor, targets: Tensor, *, gradient: bool) -> Tensor:
    """See `fused.cross_entropy`."""
    if not takes(logits):
        return fused_reference.cross_entropy(logits, targets, gradient=gradient)
    from etude.tuning.kernels.triton import loss

    return loss.cross_entropy(logits, targets, gradient=gradient)


def dequantize_4bit(
    codes: Tensor,
    absmax: Tensor,
    shape: Sequence[int],
    block: int,
    kind: str,
    dtype: torch.dtype,
) -> Tensor:
    """Decode; see `reference.dequantize_4bit`."""
    if not takes(codes):
        return reference.dequantize_4bit(codes, absmax, shape, block, kind, dtype)
    from etude.tuning.kernels.triton import decode

    return decode.dequantize_4bit(
        codes.contiguous(), absmax.contiguous(), shape, block, kind, dtype
    )


def dequantize_absmax(codes: Tensor, scales: Tensor, offset: Tensor) -> Tensor:
    """Decode scales; see `reference.dequantize_absmax`."""
    if not takes(codes):
        return reference.dequantize_absmax(codes, scales, offset)
    from etude.tuning.kernels.triton import decode

    return decode.dequantize_absmax(codes, scales, offset)


Coded = tuple[Tensor, Tensor, tuple[Tensor, Tensor] | None, tuple[int, int], int, str]
"""A 4-bit weight: codes, absmax (with double quantisation its codes), scales and offset of those
or None, shape (out, in), block and kind."""


def decoded(weight: Coded, dtype: torch.dtype) -> Tensor:
    """Return Ŵ, (out, in) in `dtype`, its scales decoded in the same pass; `takes` is a must."""
    from etude.tuning.kernels.triton import decode

    codes, absmax, double, shape, block, kind = weight
    return decode.dequantize_4bit(codes, absmax, shape, block, kind, dtype, double)


def multiplies_coded(rows: Tensor, shape: tuple[int, int]) -> bool:
    """Return whether a 4-bit weight is best multiplied tile by tile: few rows, and a kernel."""
    if not takes(rows):
        return False
    from etude.tuning.kernels.triton import product

    return len(rows) <= product.FEW_ROWS and product.can_multiply(rows, shape)


def coded_product(
    x: Tensor,
    weight: Coded,
    bias: Tensor | None,
    add: Tensor | None,
    low: tuple[Tensor, Tensor, float] | None,
) -> Tensor:
    """Return x Ŵᵀ + bias + add + s · h Bᵀ; see `triton.product.coded_product`."""
    from etude.tuning.kernels.triton import product

    add = None if add is None else add.contiguous()
    return product.coded_product(_rows(x), weight, bias, add, low)


def coded_gradient(g: Tensor, weight: Coded, add: Tensor | None) -> Tensor:
    """Return g Ŵ + add; see `triton.product.coded_gradient`."""
    from etude.tuning.kernels.triton import product

    return product.coded_gradient(_rows(g), weight, None if add is None else add.contiguous())


def down(x: Tensor, A: Tensor, scale: float = 1.0) -> Tensor:
    """Return scale · x Aᵀ, (T, r); see `triton.lora`. `takes` is a must, as for the next two."""
    from etude.tuning.kernels.triton import lora

    return lora.down(_rows(x), A, scale)


def up(h: Tensor, B: Tensor, scale: float = 1.0) -> Tensor:
    """Return scale · h Bᵀ, (T, out)."""
    from etude.tuning.kernels.triton import lora

    return lora.up(_rows(h), B, scale)


def across(thin: Tensor, wide: Tensor, scale: float = 1.0) -> Tensor:
    """Return scale · thinᵀ wide, (r, in) float32."""
    from etude.tuning.kernels.triton import lora

    return lora.across(_rows(thin), _rows(wide), scale)


def _rows(x: Tensor) -> Tensor:
    """Return x with the numbers of each row side by side: gradients of sums are views of one."""
    return x if x.stride(1) == 1 else x.contiguous()
