"""The operations of storage in 4 and 8 bits: one schema each, whatever the device and format.

`reference` defines each of them and serves every device that has nothing faster; `cpu` replaces
it on the processor, and `gpu`, where it decodes, on a GPU. PyTorch's dispatcher picks by the device
of the tensors, and the shapes registered here let `torch.compile` and the meta device look through.
None is differentiable: what trains is the adapter, and the gradient to the layer's input needs the
decoded weight only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from etude.core.errors import ModelError
from etude.tuning.kernels import cpu, gpu, reference, triton
from etude.tuning.kernels.codebooks import CODEBOOKS, DYNAMIC_BLOCK, INT8_LARGEST

# PyTorch's registration functions carry no complete types.
_registry: Any = torch.library
_library: Any = torch.library.Library("etude", "DEF")


def _operation(
    schema: str,
    reference_kernel: Callable[..., Any],
    cpu_kernel: Callable[..., Any],
    shapes: Callable[..., Any],
    gpu_kernel: Callable[..., Any] | None = None,
) -> Any:
    """Define an operation and return it, callable."""
    name = schema.partition("(")[0]
    _library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    _library.impl(name, reference_kernel, "CompositeExplicitAutograd")
    if gpu_kernel is not None:
        _library.impl(name, gpu_kernel, "CUDA")
        cpu_kernel = gpu_kernel if triton.interpreting() else cpu_kernel
    _library.impl(name, cpu_kernel, "CPU")
    _registry.register_fake(f"etude::{name}", shapes, lib=_library)
    return getattr(torch.ops.etude, name).default


def _quantized_shapes(
    x: Tensor,
    block: int,
    kind: str,  # noqa: ARG001 - the schema's
) -> tuple[Tensor, Tensor]:
    codes = x.new_empty(-(-x.numel() // 2), dtype=torch.uint8)
    return codes, x.new_empty(-(-x.numel() // block), dtype=torch.float32)


def _dequantized_shape(
    codes: Tensor,
    absmax: Tensor,  # noqa: ARG001 - the schema's
    shape: Sequence[int],
    block: int,  # noqa: ARG001 - the schema's
    kind: str,  # noqa: ARG001 - the schema's
    dtype: torch.dtype,
) -> Tensor:
    return codes.new_empty(*shape, dtype=dtype)


def _int8_shapes(x: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x, dtype=torch.int8), x.new_empty(x.shape[0], dtype=torch.float32)


def _decoded_int8_shape(
    codes: Tensor,
    absmax: Tensor,  # noqa: ARG001 - the schema's
    dtype: torch.dtype,
) -> Tensor:
    return torch.empty_like(codes, dtype=dtype)


def _quantized_absmax_shapes(absmax: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    scales = absmax.new_empty(-(-absmax.numel() // DYNAMIC_BLOCK))
    return torch.empty_like(absmax, dtype=torch.uint8), scales, absmax.new_empty(())


def _dequantized_absmax_shape(
    codes: Tensor,
    scales: Tensor,
    offset: Tensor,  # noqa: ARG001 - the schema's
) -> Tensor:
    return torch.empty_like(codes, dtype=scales.dtype)


_quantize_4bit = _operation(
    "quantize_4bit(Tensor x, int block, str kind) -> (Tensor codes, Tensor absmax)",
    reference.quantize_4bit,
    cpu.quantize_4bit,
    _quantized_shapes,
)
_dequantize_4bit = _operation(
    "dequantize_4bit(Tensor codes, Tensor absmax, SymInt[] shape, int block, str kind,"
    " ScalarType dtype) -> Tensor",
    reference.dequantize_4bit,
    cpu.dequantize_4bit,
    _dequantized_shape,
    gpu.dequantize_4bit,
)
_quantize_int8 = _operation(
    "quantize_int8(Tensor x) -> (Tensor codes, Tensor absmax)",
    reference.quantize_int8,
    cpu.quantize_int8,
    _int8_shapes,
)
_dequantize_int8 = _operation(
    "dequantize_int8(Tensor codes, Tensor absmax, ScalarType dtype) -> Tensor",
    reference.dequantize_int8,
    cpu.dequantize_int8,
    _decoded_int8_shape,
)
_quantize_absmax = _operation(
    "quantize_absmax(Tensor absmax) -> (Tensor codes, Tensor scales, Tensor offset)",
    reference.quantize_absmax,
    cpu.quantize_absmax,
    _quantized_absmax_shapes,
)
_dequantize_absmax = _operation(
    "dequantize_absmax(Tensor codes, Tensor scales, Tensor offset) -> Tensor",
    reference.dequantize_absmax,
    cpu.dequantize_absmax,
    _dequantized_absmax_shape,
    gpu.dequantize_absmax,
)


def quantize_4bit(x: Tensor, block: int, kind: str) -> tuple[Tensor, Tensor]:
    """Quantize to 4 bits, block by block.

    Args:
        x: the weight, any shape, n elements; float32, bfloat16 or float16.
        block: weights that share a scale: a power of two, 32 to 4096.
        kind: `nf4`, `fp4` or `int4`, see `codebooks`.

    Returns:
        codes: uint8 (ceil(n / 2),), two 4-bit codes a byte, the first in the high half.
        absmax: float32 (ceil(n / block),), the scale of each block.

    Raises:
        ModelError: `x` holds NaN or infinity, which no code stands for.
    """
    _refuse_unknown(kind)
    _refuse_dtype(x)
    if not 32 <= block <= 4096 or block & (block - 1):
        raise ValueError(f"block must be a power of two from 32 to 4096, got {block}")
    refuse_non_finite(x)
    return _quantize_4bit(x, block, kind)


def dequantize_4bit(
    codes: Tensor,
    absmax: Tensor,
    shape: Sequence[int],
    block: int,
    kind: str,
    dtype: torch.dtype,
) -> Tensor:
    """Decode 4-bit codes: level times absmax in float32, rounded once to `dtype`.

    Args:
        codes: uint8 (ceil(n / 2),), n = prod(shape).
        absmax: float32 (ceil(n / block),).
        shape: of the weight.
        block: as it was quantised with.
        kind: likewise.
        dtype: of the result; any floating type.

    Returns:
        The weight, `shape` in `dtype`.
    """
    _refuse_unknown(kind)
    count = prod(shape)
    wanted = -(-count // 2), -(-count // block)
    if (codes.numel(), absmax.numel()) != wanted:
        raise ValueError(
            f"{tuple(shape)} in blocks of {block} has {wanted[0]} bytes and {wanted[1]} scales, "
            f"got {codes.numel()} and {absmax.numel()}"
        )
    return _dequantize_4bit(codes, absmax, shape, block, kind, dtype)


def quantize_int8(x: Tensor) -> tuple[Tensor, Tensor]:
    """Quantize to 8 bits, uniform, a scale a row.

    Args:
        x: the weight, (rows, columns); float32, bfloat16 or float16.

    Returns:
        codes: int8 (rows, columns), -127 to 127.
        absmax: float32 (rows,), the largest magnitude of each row.

    Raises:
        ModelError: `x` holds NaN or infinity, which no code stands for, or numbers so large that
            decoding would overflow.
    """
    _refuse_dtype(x)
    if x.dim() != 2:
        raise ValueError(f"a matrix is wanted, not {tuple(x.shape)}")
    refuse_non_finite(x)
    codes, absmax = _quantize_int8(x)
    # Decoding multiplies code and absmax before it divides by 127, as bitsandbytes does.
    most = torch.finfo(torch.float32).max / INT8_LARGEST
    if absmax.device.type != "meta" and absmax.amax() > most:
        raise ModelError(
            f"the weight holds numbers above {most:.2g}, which int8 cannot hold; the checkpoint is "
            "damaged, or use quant.kind: nf4"
        )
    return codes, absmax


def dequantize_int8(codes: Tensor, absmax: Tensor, dtype: torch.dtype) -> Tensor:
    """Decode rows of 8-bit codes: code · absmax / 127 in float32, rounded once to `dtype`.

    Args:
        codes: int8 (rows, columns).
        absmax: float32 (rows,).
        dtype: of the result; any floating type.

    Returns:
        The weight, (rows, columns) in `dtype`.
    """
    if codes.dim() != 2 or absmax.shape != codes.shape[:1]:
        raise ValueError(f"{tuple(codes.shape)} codes have {absmax.numel()} scales: one a row")
    return _dequantize_int8(codes, absmax, dtype)


def quantize_absmax(absmax: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Quantize the scales of a weight to 8 bits (double quantisation).

    The offset is `absmax.mean()`, whose last bit may depend on the number of threads when there
    are 32768 scales or more, as it does in bitsandbytes.

    Args:
        absmax: float32 (blocks,), the scales of one whole weight.

    Returns:
        codes: uint8 (blocks,). scales: float32 (ceil(blocks / 256),). offset: float32 ().

    Raises:
        ModelError: the scales are so large that their mean overflows.
    """
    codes, scales, offset = _quantize_absmax(absmax)
    if offset.device.type != "meta" and not torch.isfinite(offset):
        raise ModelError(
            "the weight's scales are too large to be averaged in float32; "
            "switch double quantisation off (quant.double: false)"
        )
    return codes, scales, offset


def dequantize_absmax(codes: Tensor, scales: Tensor, offset: Tensor) -> Tensor:
    """Decode the scales of a weight: level times scale plus offset, float32 (blocks,)."""
    return _dequantize_absmax(codes, scales, offset)


def _refuse_unknown(kind: str) -> None:
    if kind not in CODEBOOKS:
        raise ValueError(f"no 4-bit format {kind!r}; there are {', '.join(CODEBOOKS)}")


def _refuse_dtype(x: Tensor) -> None:
    if x.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise TypeError(f"float32, bfloat16 or float16 weights are wanted, got {x.dtype}")
    if x.numel() == 0:
        raise ValueError("at least one weight is wanted")


def refuse_non_finite(x: Tensor, first_row: int = 0) -> None:
    """Refuse NaN and infinity in `x`, rows `first_row` and on of a larger weight.

    Raises:
        ModelError: saying how many there are and where the first is.
    """
    if x.device.type == "meta":
        return
    low, high = torch.aminmax(x.detach())  # NaN comes through; no memory of the size of x
    if torch.isfinite(low) and torch.isfinite(high):
        return
    bad = torch.nonzero(~torch.isfinite(x))
    value = x[tuple(bad[0])].item()
    bad[0, 0] += first_row
    place = ", ".join(str(int(index)) for index in bad[0])
    raise ModelError(
        f"the weight holds {len(bad)} value(s) that are not finite, the first, {value}, at "
        f"[{place}]; the checkpoint is damaged, or overflowed when it was converted"
    )
