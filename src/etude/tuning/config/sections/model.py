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
    """Dtype of the forward pass. `auto`: bfloat16 if the device supports it natively."""

    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$")] = "auto"
    """`cpu`, `cuda`, `cuda:1`, ... `auto`: a working CUDA GPU for which the Triton kernels can be
    compiled, else `cpu`. `mps` is not supported by quantised bases and fused kernels."""
