"""`quant`: quantisation of the frozen base."""

from __future__ import annotations

from typing import Literal

from etude.tuning.config.sections.base import Section


class QuantSpec(Section):
    """Quantisation of the frozen base."""

    kind: Literal["nf4", "fp4", "int4", "int8", "native", "none"] = "nf4"
    """`nf4`: 4-bit NormalFloat (QLoRA). `fp4`: 4-bit floating point. `int4`: uniform, 4 bits.
    `int8`: uniform, 8 bits, one scale per row. `native`: the quantised format of the checkpoint
    (GGUF blocks, bitsandbytes codes), unchanged. `none`: not quantised."""

    block: Literal[32, 64, 128, 256, 512, 1024, 2048, 4096] = 64
    """Weights per scale (`nf4`, `fp4`, `int4`)."""

    double: bool = True
    """Double quantisation: store the scales in 8 bits, in blocks of 256 (`nf4`, `fp4`, `int4`)."""

    compute: Literal["decoded", "int8"] = "decoded"
    """Products with the base. `decoded`: with decoded weights. `int8` (kind `int8` only): in 8-bit
    integers, with activations and gradients rounded per row; faster, less exact."""
