"""Batch layout of a model: packed rows with fused layers, or padded rows."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from etude.tuning.data.batch import Layout
from etude.tuning.fusion.packed_attention import packed_rows
from etude.tuning.fusion.patch import Fusion, fused_layers


@contextmanager
def row_layout(model: Any, layout: Layout) -> Generator[Fusion | None]:
    """Prepare `model` for batches of `layout` inside the block, and restore it afterwards.

    Yields:
        The fused layers; None for padded rows, which use the model's own code.
    """
    if not layout.packed:
        yield None
        return
    with packed_rows(model), fused_layers(model) as fusion:
        yield fusion
