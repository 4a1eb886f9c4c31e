"""Checkpoint: the weights of a model on disk, read a slice of rows at a time.

A load must never hold more than the model it makes and a little of the one it reads. So a
checkpoint offers no tensors, only row slices of them, already float32; it reads the file with
plain reads, because pages of a mapped file count as this process's memory once touched.
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
"""Numbers in one slice: 1 MiB of float32, large enough that Python's share of the time is small."""

_SAMPLE_BYTES = 64


@dataclass(frozen=True)
class TensorInfo:
    """What a checkpoint says of one tensor before any of it is read."""

    shape: tuple[int, ...]
    format: str
    """How the numbers are stored: `F32`, `BF16`, `Q4_1`, ..."""

    bytes: int
    """Size in the file."""

    row_multiple: int = 1
    """Slices begin and end at multiples of this many rows: rows that are stored interleaved."""


class Checkpoint(Protocol):
    """A model's files, whatever their format. Tensor names are those of transformers.

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
        """What the files say of the architecture, in plain data, as they say it."""
        ...

    @property
    def license(self) -> str | None:
        """What the files say of the weights' licence."""
        ...

    @property
    def chat_template(self) -> str | None:
        """The Jinja template that turns messages into text."""
        ...

    def generation_config(self) -> Any | None:
        """How the model wants to generate: end tokens, sampling; None if the files do not say."""
        ...

    def tokenizer(self) -> Any:
        """Build the tokenizer, its special tokens and chat template set."""
        ...

    def read_rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Return rows `start` to `stop` of a tensor along its first dimension, float32."""
        ...

    def read_bytes(self, name: str, start: int, count: int) -> bytes:
        """Return `count` bytes of a tensor as stored, from its byte `start` on."""
        ...

    def close(self) -> None:
        """Close the files."""
        ...


def row_slices(info: TensorInfo) -> Iterator[tuple[int, int]]:
    """Cut a tensor into row slices of about `SLICE_NUMBERS` numbers."""
    rows = info.shape[0] if info.shape else 1
    width = math.prod(info.shape[1:])
    step = max(1, SLICE_NUMBERS // width // info.row_multiple) * info.row_multiple
    for start in range(0, rows, step):
        yield start, min(start + step, rows)


def fingerprint(checkpoint: Checkpoint) -> str:
    """Return a SHA-256 that tells one set of weights from another without reading all of them.

    Covers what the files say of the architecture, every tensor's name, shape and format, and 64
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
