"""`model`: the base model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from etude.tuning.config.sections.base import Section


class ModelSpec(Section):
    """The base model."""

    id: str = "smollm2-135m"
    """An alias (`etude models list`), a hub id, a folder, or a `.gguf` file."""

    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """Arithmetic of the forward pass. `auto`: bfloat16 where the device has it natively."""

    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$")] = "auto"
    """`cpu`, `cuda`, `cuda:1`, ... `auto`: a CUDA GPU that works and that the Triton kernels can be
    compiled for, else `cpu`. `mps` is refused: quantised bases and fused kernels are not built for
    it."""
