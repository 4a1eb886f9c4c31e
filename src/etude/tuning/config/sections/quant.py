"""`quant`: how the frozen base is held in memory."""

from __future__ import annotations

from typing import Literal

from etude.tuning.config.sections.base import Section


class QuantSpec(Section):
    """How the frozen base is held in memory."""

    kind: Literal["nf4", "fp4", "int4", "int8", "native", "none"] = "nf4"
    """`nf4`: 4-bit NormalFloat codes (QLoRA). `fp4`: 4-bit floating point. `int4`: uniform, 4 bits.
    `int8`: uniform, 8 bits, a scale a row. `native`: the blocks of the GGUF file, or the 4-bit
    codes of the checkpoint, as they are on disk. `none`: decoded weights."""

    block: Literal[32, 64, 128, 256, 512, 1024, 2048, 4096] = 64
    """Weights that share one scale (`nf4`, `fp4`, `int4`)."""

    double: bool = True
    """Quantise the scales too, to 8 bits, 256 of them sharing one scale (`nf4`, `fp4`, `int4`)."""

    compute: Literal["decoded", "int8"] = "decoded"
    """Products with the base. `decoded`: its weights as numbers. `int8` (kind `int8` only): 8-bit
    integers on both sides, activations and gradients rounded row by row: faster, less exact."""
