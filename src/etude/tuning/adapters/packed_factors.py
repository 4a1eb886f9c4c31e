"""Storage format of quantised factors: bit-packed codes of k bits, and their scales.

    <module>.lora_A.weight  (r, in) float32   ──▶   .codes  uint8, ceil(r · in · k / 8) bytes
                                                    .scales float32, one a tensor, row or block
                                                    .shape  int64 (2,)

At 4 bits with one scale per row, an adapter of rank 16 on SmolLM2-135M is 2.5 MB instead of 19.5.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from etude.core.errors import AdapterError
from etude.tuning.config.sections.adapter import FactorSpec
from etude.tuning.quant.uniform import (
    dequantize_uniform,
    pack_bits,
    quantize_uniform,
    unpack_bits,
)

PACKED = "adapter_factors.safetensors"

_A, _B = ("lora_A.weight", "lora_embedding_A"), ("lora_B.weight", "lora_embedding_B")


def pack_factors(tensors: dict[str, Tensor], spec: FactorSpec) -> dict[str, Tensor]:
    """Replace every factor by its codes and scales; other tensors are unchanged.

    Factors that were rounded already produce the same codes, because rounding is idempotent: the
    largest magnitude in each scale's group is itself a code.
    """
    assert spec.bits is not None
    packed: dict[str, Tensor] = {}
    for key, value in tensors.items():
        if not key.endswith(_A + _B):
            packed[key] = value
            continue
        matrix = value.flatten(1)
        vectors = matrix.T.contiguous() if key.endswith(_B) else matrix
        codes, scales = quantize_uniform(vectors, spec.bits, spec.scale, spec.block)
        packed[f"{key}.codes"] = pack_bits(codes, spec.bits)
        packed[f"{key}.scales"] = scales
        packed[f"{key}.shape"] = torch.tensor(value.shape)
    return packed


def unpack_factors(content: dict[str, Tensor], spec: FactorSpec, file: Path) -> dict[str, Tensor]:
    """Return the rounded values of the tensors passed to `pack_factors`.

    Raises:
        AdapterError: a tensor is missing or has a wrong shape.
    """
    assert spec.bits is not None
    tensors: dict[str, Tensor] = {}
    for key, value in content.items():
        name, _, what = key.rpartition(".")
        if what in ("scales", "shape") and f"{name}.codes" in content:
            continue
        if what != "codes":
            tensors[key] = value
            continue
        try:
            shape = torch.Size(cast("list[int]", cast("Any", content[f"{name}.shape"]).tolist()))
            rows = shape[1] if name.endswith(_B) else shape[0]
            codes = unpack_bits(value, spec.bits, shape.numel()).view(rows, -1)
            scales = content[f"{name}.scales"]
            vectors = dequantize_uniform(codes, scales, spec.scale, spec.block)
        except (KeyError, RuntimeError, ValueError, IndexError) as error:
            raise AdapterError(f"{file} is damaged: {name}: {error}") from None
        matrix = vectors.T if name.endswith(_B) else vectors
        tensors[name] = matrix.reshape(shape).contiguous()
    return tensors
