"""GGUF container: metadata and tensors, read without mapping the file into memory.

A file is: magic, version, two counts, key-value metadata, one record per tensor, padding, data.
Every number is little-endian. Tensors come in llama.cpp's block formats: a row is cut into blocks
of 32 (or 256) weights, and a block is stored as small integers with one or two scales.

The `gguf` package also has a reader, but it maps the file and makes several NumPy views of every
string in the vocabulary: for SmolLM2 that takes 160 MB and three seconds, the whole budget of a
memory-bounded load. Block sizes and the decoders of rare formats come from that package; the common
formats have their own decoder, several times as fast (`kernels/gguf.py`).

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self, cast

import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType
from gguf.quants import dequantize

from etude.core.errors import ModelError
from etude.tuning.kernels.gguf import FORMATS, dequantize_gguf

_MAGIC = b"GGUF"
_DEFAULT_ALIGNMENT = 32

DENSE = {
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
"""Unquantised formats, by llama.cpp's names."""

_SCALARS = {
    GGUFValueType.UINT8: "B",
    GGUFValueType.INT8: "b",
    GGUFValueType.UINT16: "H",
    GGUFValueType.INT16: "h",
    GGUFValueType.UINT32: "I",
    GGUFValueType.INT32: "i",
    GGUFValueType.FLOAT32: "f",
    GGUFValueType.BOOL: "?",
    GGUFValueType.UINT64: "Q",
    GGUFValueType.INT64: "q",
    GGUFValueType.FLOAT64: "d",
}


@dataclass(frozen=True)
class GGUFTensor:
    """One tensor's record."""

    name: str
    shape: tuple[int, ...]
    """Row-major, as PyTorch counts: the last dimension is contiguous."""

    type: GGMLQuantizationType
    offset: int
    """Offset from the beginning of the file, in bytes."""

    @property
    def row_bytes(self) -> int:
        """Bytes of one slice along the first dimension."""
        block, size = GGML_QUANT_SIZES[self.type]
        return math.prod(self.shape[1:]) // block * size if self.shape[1:] else size

    @property
    def bytes(self) -> int:
        """Bytes of the whole tensor in the file."""
        return self.shape[0] * self.row_bytes


class GGUFFile:
    """An open GGUF file. Use as a context manager, or `close` it.

    Raises:
        ModelError: the file is missing, not a GGUF file, damaged or truncated.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise ModelError(f"cannot read {path}: {error.strerror}") from None
        try:
            self._size = path.stat().st_size
            self.metadata, self.tensors = self._read_header()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; tensors can no longer be read."""
        self._file.close()

    def read_bytes(self, tensor: GGUFTensor, start: int, count: int) -> torch.Tensor:
        """Return `count` bytes of a tensor as stored, from its byte `start` on: uint8."""
        raw = torch.empty(count, dtype=torch.uint8)
        into: Any = raw.numpy()
        if os.preadv(self._file.fileno(), [into], tensor.offset + start) != count:
            raise ModelError(f"{self.path} ends inside tensor {tensor.name}: fetch it again")
        return raw

    def read_rows(self, tensor: GGUFTensor, start: int, stop: int) -> torch.Tensor:
        """Return rows `start` to `stop` along the first dimension, decoded to float32."""
        size = tensor.row_bytes
        raw = self.read_bytes(tensor, start * size, (stop - start) * size)
        numbers = decode(raw.reshape(stop - start, size), tensor.type)
        return numbers.reshape(stop - start, *tensor.shape[1:])

    def _read_header(self) -> tuple[dict[str, Any], dict[str, GGUFTensor]]:
        header = _Header(self._file, self.path, self._size)
        if self._file.read(4) != _MAGIC:
            raise ModelError(f"{self.path} is not a GGUF file: it does not begin with 'GGUF'")
        version = header.scalar("I")
        if version not in (2, 3):
            # A big-endian file has its version in the high bytes.
            raise ModelError(
                f"{self.path} is GGUF version {version:#x}; only little-endian versions 2 and 3 "
                "are read"
            )
        tensor_count = header.count(24)
        entry_count = header.count(12)
        metadata = {header.string(): header.value() for _ in range(entry_count)}
        records = [header.tensor() for _ in range(tensor_count)]
        alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1:
            raise ModelError(f"{self.path} is damaged: tensors aligned to {alignment!r} bytes")
        data = -(-self._file.tell() // alignment) * alignment
        tensors: dict[str, GGUFTensor] = {}
        for name, shape, kind, offset in records:
            tensor = GGUFTensor(name, shape, kind, data + offset)
            if tensor.offset + tensor.bytes > self._size:
                raise ModelError(
                    f"{self.path} is truncated: tensor {name} ends at byte "
                    f"{tensor.offset + tensor.bytes:,}, the file at {self._size:,}; fetch it again"
                )
            tensors[name] = tensor
        return metadata, tensors


class _Header:
    """Parser of the header's items in order; refuses invalid values."""

    def __init__(self, file: BinaryIO, path: Path, size: int) -> None:
        self._file = file
        self._path = path
        self._size = size

    def _damaged(self, what: str) -> ModelError:
        return ModelError(f"{self._path} is damaged: {what}; fetch it again")

    def _read(self, count: int) -> bytes:
        content = self._file.read(count)
        if len(content) != count:
            raise self._damaged("it ends inside its header")
        return content

    def scalar(self, code: str) -> Any:
        form = "<" + code
        return struct.unpack(form, self._read(struct.calcsize(form)))[0]

    def count(self, least_bytes: int) -> int:
        """Read a count of items, each of which takes at least `least_bytes` of the file."""
        count = cast("int", self.scalar("Q"))
        if count * least_bytes > self._size:
            raise self._damaged(f"its header declares {count:,} items, more than its size allows")
        return count

    def string(self) -> str:
        try:
            return self._read(self.count(1)).decode("utf-8")
        except UnicodeDecodeError:
            raise self._damaged("a string of its header is not UTF-8") from None

    def _kind(self) -> GGUFValueType:
        number = self.scalar("I")
        try:
            return GGUFValueType(number)
        except ValueError:
            raise self._damaged(f"unknown metadata type {number}") from None

    def value(self, kind: GGUFValueType | None = None) -> Any:
        kind = self._kind() if kind is None else kind
        if kind == GGUFValueType.STRING:
            return self.string()
        if kind != GGUFValueType.ARRAY:
            return self.scalar(_SCALARS[kind])
        inner = self._kind()
        if inner in _SCALARS:
            code = _SCALARS[inner]
            width = struct.calcsize(code)
            count = self.count(width)
            return list(struct.unpack(f"<{count}{code}", self._read(count * width)))
        if inner == GGUFValueType.ARRAY:
            raise self._damaged("its metadata has nested arrays")
        return [self.value(inner) for _ in range(self.count(8))]

    def tensor(self) -> tuple[str, tuple[int, ...], GGMLQuantizationType, int]:
        name = self.string()
        dimensions = self.scalar("I")
        if not 1 <= dimensions <= 4:
            raise self._damaged(f"tensor {name} has {dimensions} dimensions")
        # GGUF lists the contiguous dimension first.
        shape = tuple(self.scalar("Q") for _ in range(dimensions))[::-1]
        number = self.scalar("I")
        try:
            kind = GGMLQuantizationType(number)
        except ValueError:
            raise ModelError(
                f"{self._path} stores tensor {name} in unknown format {number}"
            ) from None
        block, _ = GGML_QUANT_SIZES[kind]
        if math.prod(shape) == 0 or shape[-1] % block:
            raise self._damaged(f"tensor {name} of shape {shape} cannot be {kind.name}")
        return name, shape, kind, self.scalar("Q")


def decode(raw: torch.Tensor, kind: GGMLQuantizationType) -> torch.Tensor:
    """Decode rows of blocks to float32.

    Args:
        raw: (rows, bytes of a row), uint8.
        kind: the blocks' format.

    Returns:
        (rows, weights of a row), float32.

    Raises:
        ModelError: the format has no decoder.
    """
    if kind.name in DENSE:
        return raw.view(DENSE[kind.name]).float()
    weights, size = GGML_QUANT_SIZES[kind]
    if kind.name in FORMATS:
        shape = len(raw), raw.shape[1] // size * weights
        return dequantize_gguf(raw, kind.name, shape, torch.float32)
    try:
        numbers: Any = dequantize(raw.numpy(), kind)
        return torch.as_tensor(numbers)
    except NotImplementedError:
        raise ModelError(
            f"weights in GGUF format {kind.name} cannot be decoded; use a file in "
            f"{', '.join([*DENSE, *FORMATS])}"
        ) from None
