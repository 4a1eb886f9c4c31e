"""`model`: the base model."""

from __future__ import annotations

from typing import Literal

from etude.tuning.config.sections.base import Section


class ModelSpec(Section):
    """The base model."""

    id: str = "smollm2-135m"
    """An alias (`etude models list`), a hub id, a folder, or a `.gguf` file."""

    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """Arithmetic of the forward pass. `auto`: bfloat16 where the processor has it natively."""
