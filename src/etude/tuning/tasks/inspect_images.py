"""Inspection of images before training: classes, sizes, and what was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from etude.tuning.data.counts import Counts, EncodingStats
from etude.tuning.data.inspect import Inspection, Look, Piece
from etude.tuning.data.labels import labels_of
from etude.tuning.data.schema import DataSplit, Sample
from etude.tuning.images.decode import decode

SIZED = 500
"""Images whose size is looked at for the range of sizes."""


def inspect_images(split: DataSplit, rows: int) -> Inspection:
    """Inspect the first `rows` training images, and count all.

    Args:
        split: images with their classes.
        rows: images to show.
    """
    looks = [_look(sample) for sample in split.train[:rows]]
    counted = Counter(label for sample in split.train for label in labels_of(sample))
    notes = [
        *split.notes,
        "training images by class: "
        + ", ".join(f"{label} {count:,}" for label, count in sorted(counted.items())),
        _sizes(split.train[:SIZED]),
    ]
    return Inspection(looks, _stats(split.train), _stats(split.eval), notes)


def _look(sample: Sample) -> Look:
    width, height = decode(Path(sample.image or "")).image.size
    shown = f"{sample.image}  {width} × {height}"
    return Look(sample.origin, [Piece(shown, "context")], f"label: {', '.join(labels_of(sample))}")


def _sizes(samples: Sequence[Sample]) -> str:
    sizes = [decode(Path(sample.image or "")).image.size for sample in samples]
    widths, heights = [size[0] for size in sizes], [size[1] for size in sizes]
    return (
        f"widths {min(widths):,} to {max(widths):,}, heights {min(heights):,} to "
        f"{max(heights):,} pixels (of the first {len(sizes):,} training images)"
    )


def _stats(samples: Sequence[Sample]) -> EncodingStats:
    return replace(Counts().stats(), samples=len(samples))
