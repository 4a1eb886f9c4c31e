"""Checkpoint interface: a model's weights on disk, read in slices of rows.

Loading must not need much more memory than the finished model. So a checkpoint provides row slices
of tensors only, already float32, and uses plain reads, because touched pages of a mapped file count
as memory of the process.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

SLICE_NUMBERS = 1 << 18
"""Elements of one slice: 1 MiB of float32, large enough to hide Python's overhead."""

_SAMPLE_BYTES = 64


@dataclass(frozen=True)
class TensorInfo:
    """Metadata of a tensor in a checkpoint."""

    shape: tuple[int, ...]
    format: str
    """Storage format: `F32`, `BF16`, `Q4_1`, ..."""

    bytes: int
    """Size in the file, in bytes."""

    row_multiple: int = 1
    """Slices must begin and end at multiples of this many rows, which are interleaved."""


class Checkpoint(Protocol):
    """A model's files in any format. Tensor names are those of transformers.

    Reading is safe from several threads at a time.
    """

    path: Path
    tensors: Mapping[str, TensorInfo]

    @property
    def config(self) -> Any:
        """The transformers configuration."""
        ...

    @property
    def identity(self) -> Mapping[str, Any]:
        """The architecture's metadata in the files, as plain data."""
        ...

    @property
    def license(self) -> str | None:
        """The weights' licence, if the files name it."""
        ...

    @property
    def chat_template(self) -> str | None:
        """The Jinja chat template."""
        ...

    def generation_config(self) -> Any | None:
        """Generation configuration: end tokens, sampling; None if the files have none."""
        ...

    def tokenizer(self) -> Any:
        """Build the tokenizer, its special tokens and chat template set."""
        ...

    def read_rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Return rows `start` to `stop` of a tensor along its first dimension, float32."""
        ...

    def read_bytes(self, name: str, start: int, count: int) -> bytes:
        """Return `count` bytes of a tensor as stored, from byte `start` on."""
        ...

    def close(self) -> None:
        """Close the files."""
        ...


def row_slices(info: TensorInfo) -> Iterator[tuple[int, int]]:
    """Split a tensor into row slices of about `SLICE_NUMBERS` elements."""
    rows = info.shape[0] if info.shape else 1
    width = math.prod(info.shape[1:])
    step = max(1, SLICE_NUMBERS // width // info.row_multiple) * info.row_multiple
    for start in range(0, rows, step):
        yield start, min(start + step, rows)


def fingerprint(checkpoint: Checkpoint) -> str:
    """Return a SHA-256 fingerprint of the weights without reading all of them.

    Covers the architecture's metadata, every tensor's name, shape and format, and 64
    bytes from the beginning, middle and end of each. Training changes nearly every weight, so a
    further-trained model differs in the sampled bytes.
    """
    digest = hashlib.sha256(json.dumps(checkpoint.identity, sort_keys=True).encode())
    for name, info in sorted(checkpoint.tensors.items()):
        digest.update(f"\n{name} {info.shape} {info.format} ".encode())
        count = min(_SAMPLE_BYTES, info.bytes)
        for start in (0, (info.bytes - count) // 2, info.bytes - count):
            digest.update(checkpoint.read_bytes(name, start, count))
    return digest.hexdigest()
