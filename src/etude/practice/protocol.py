"""Serialisation between judge and submission: a JSON header and raw bytes, never pickle.

Whatever a submission sends may be hostile. So decoding produces plain data only: it calls nothing
that the sender names, allocates no more than the received bytes fill, and raises `MalformedError`
for anything irregular. An object of any other class arrives as `Foreign`, which holds only the name
of its class: no `__eq__` of the sender's ever runs here.

A frame is two little-endian lengths (4 and 8 bytes), the header, and the bytes of all tensors.
"""

# What torch, NumPy and others leave untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false
from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch

LENGTHS = struct.Struct("<IQ")
DEEPEST = 32
MOST_NODES = 200_000

TORCH_TYPES: dict[str, torch.dtype] = {
    str(kind).removeprefix("torch."): kind
    for kind in (
        torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32,
        torch.int16, torch.int8, torch.uint8, torch.bool, torch.complex64, torch.complex128,
    )
}  # fmt: skip
NUMPY_TYPES = (
    "float64", "float32", "float16", "int64", "int32", "int16", "int8",
    "uint64", "uint32", "uint16", "uint8", "bool", "complex64", "complex128",
)  # fmt: skip


class MalformedError(ValueError):
    """Bytes that do not encode a value."""


@dataclass(frozen=True)
class Foreign:
    """A value of an unsupported class, represented by the name of the class."""

    name: str


@dataclass(frozen=True)
class Dataset:
    """A `torch.utils.data.TensorDataset` as data: its tensors and its reported length."""

    tensors: tuple[torch.Tensor, ...]
    length: int


class _Writer:
    """Builds the JSON tree of a value and collects its buffers."""

    def __init__(self) -> None:
        self.buffers: list[bytes] = []
        self.size = 0
        self.nodes = 0

    def tree(self, value: Any, depth: int = 0) -> Any:
        """Return the JSON form of `value`."""
        self.nodes += 1
        if depth > DEEPEST or self.nodes > MOST_NODES:
            return {"t": "other", "name": "a structure too deep or too large to send"}
        # Exact classes: a subclass may override anything that its base reports.
        kind = type(value)
        if value is None or kind is bool or kind is str:
            return value
        if kind is int:
            return value if abs(value) < 2**53 else {"t": "int", "v": hex(value)}
        if kind is float:
            return {"t": "float", "v": value.hex() if math.isfinite(value) else repr(value)}
        return self._container(value, kind, depth)

    def _container(self, value: Any, kind: type, depth: int) -> Any:
        if kind is list:
            return [self.tree(item, depth + 1) for item in value]
        if kind in (tuple, torch.Size):
            name = "tuple" if kind is tuple else "size"
            return {"t": name, "v": [self.tree(item, depth + 1) for item in value]}
        if kind is dict:
            pairs = [
                [self.tree(key, depth + 1), self.tree(item, depth + 1)]
                for key, item in value.items()
            ]
            return {"t": "dict", "v": pairs}
        if kind in (set, frozenset):
            items = sorted((self.tree(item, depth + 1) for item in value), key=repr)
            return {"t": "set", "v": items}
        if kind is bytes:
            return {"t": "bytes", **self._put(value)}
        if kind is torch.dtype:
            return {"t": "dtype", "v": str(value).removeprefix("torch.")}
        if kind in (torch.Tensor, torch.nn.Parameter):
            return self._tensor(value, kind)
        if kind is np.ndarray:
            return self._array(value)
        if isinstance(value, np.generic):
            return {"t": "scalar", "v": self._array(np.asarray(value))}
        if kind is torch.utils.data.TensorDataset:
            tensors = [self.tree(item, depth + 1) for item in value.tensors]
            return {"t": "dataset", "v": tensors, "n": len(value)}
        return {"t": "other", "name": f"{kind.__module__}.{kind.__qualname__}"[:200]}

    def _tensor(self, value: torch.Tensor, kind: type) -> Any:
        name = str(value.dtype).removeprefix("torch.")
        if value.layout is not torch.strided or name not in TORCH_TYPES or value.is_meta:
            return {"t": "other", "name": f"a tensor of {value.layout}, {value.dtype}"}
        plain = value.detach().resolve_conj().resolve_neg().contiguous()
        tree = {"t": "tensor", "d": name, "s": list(value.shape)}
        tree |= self._put(
            plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b""
        )
        if not value.is_contiguous() and 0 not in value.stride():
            tree["st"] = list(value.stride())
        if value.requires_grad:
            tree["g"] = True
        if kind is torch.nn.Parameter:
            tree["p"] = True
        return tree

    def _array(self, value: Any) -> Any:
        name = value.dtype.name
        if name not in NUMPY_TYPES:
            return {"t": "other", "name": f"an array of {value.dtype}"}
        return {"t": "array", "d": name, "s": list(value.shape), **self._put(value.tobytes())}

    def _put(self, content: bytes) -> dict[str, int]:
        at = self.size
        self.buffers.append(content)
        self.size += len(content)
        return {"at": at, "n": len(content)}


def encode(value: Any) -> bytes:
    """Return `value` as a frame; values of unsupported classes are sent as class names."""
    writer = _Writer()
    header = json.dumps(writer.tree(value), separators=(",", ":")).encode(
        "utf-8", "backslashreplace"
    )
    return b"".join([LENGTHS.pack(len(header), writer.size), header, *writer.buffers])


def decode(frame: bytes | memoryview) -> Any:
    """Return the value of a frame.

    Raises:
        MalformedError: the bytes are not a valid frame.
    """
    if len(frame) < LENGTHS.size:
        raise MalformedError("shorter than its lengths")
    head, body = LENGTHS.unpack_from(frame)
    if LENGTHS.size + head + body != len(frame):
        raise MalformedError("of another length than it says")
    view = memoryview(frame)
    try:
        tree = json.loads(bytes(view[LENGTHS.size : LENGTHS.size + head]))
        return _Reader(view[LENGTHS.size + head :]).value(tree)
    except MalformedError:
        raise
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError, RuntimeError) as error:
        raise MalformedError(f"{type(error).__name__}: {error}"[:200]) from error


class _Reader:
    """Builds values from an untrusted tree."""

    def __init__(self, body: memoryview) -> None:
        self.body = body
        self.nodes = 0

    def value(self, tree: Any, depth: int = 0) -> Any:
        """Return the value of one node."""
        self.nodes += 1
        if depth > DEEPEST + 2 or self.nodes > MOST_NODES:
            raise MalformedError("nested too deeply or too large")
        if tree is None or isinstance(tree, bool | int | str):
            return tree
        if isinstance(tree, list):
            return [self.value(item, depth + 1) for item in cast("list[Any]", tree)]
        if not isinstance(tree, dict):
            raise MalformedError("a node of unknown kind")
        node = cast("dict[str, Any]", tree)
        kind = node["t"]
        read = getattr(self, f"_{kind}", None) if isinstance(kind, str) and kind in KINDS else None
        if read is None:
            raise MalformedError("a node of unknown kind")
        return read(node, depth)

    def _items(self, node: dict[str, Any], depth: int) -> list[Any]:
        items = node["v"]
        if not isinstance(items, list):
            raise MalformedError("a sequence without items")
        return [self.value(item, depth + 1) for item in cast("list[Any]", items)]

    def _int(self, node: dict[str, Any], depth: int) -> int:
        if not isinstance(node["v"], str) or len(node["v"]) > 4000:
            raise MalformedError("an integer that is too long")
        return int(node["v"], 16)

    def _float(self, node: dict[str, Any], depth: int) -> float:
        text = str(node["v"])
        return float(text) if text in ("nan", "inf", "-inf") else float.fromhex(text)

    def _tuple(self, node: dict[str, Any], depth: int) -> tuple[Any, ...]:
        return tuple(self._items(node, depth))

    def _size(self, node: dict[str, Any], depth: int) -> torch.Size:
        return torch.Size(self._whole(item) for item in self._items(node, depth))

    def _dict(self, node: dict[str, Any], depth: int) -> dict[Any, Any]:
        pairs = [self.value(pair, depth + 1) for pair in node["v"]]
        return dict(pairs)

    def _set(self, node: dict[str, Any], depth: int) -> set[Any]:
        return set(self._items(node, depth))

    def _bytes(self, node: dict[str, Any], depth: int) -> bytes:
        return bytes(self._buffer(node))

    def _dtype(self, node: dict[str, Any], depth: int) -> torch.dtype:
        return TORCH_TYPES[node["v"]]

    def _other(self, node: dict[str, Any], depth: int) -> Foreign:
        return Foreign(str(node["name"])[:200])

    def _dataset(self, node: dict[str, Any], depth: int) -> Dataset:
        tensors = self._items(node, depth)
        if not all(isinstance(item, torch.Tensor) for item in tensors):
            raise MalformedError("a dataset of other values than tensors")
        return Dataset(tuple(tensors), self._whole(node["n"]))

    def _scalar(self, node: dict[str, Any], depth: int) -> Any:
        array = self.value(node["v"], depth + 1)
        if not isinstance(array, np.ndarray) or array.shape != ():
            raise MalformedError("a scalar with a shape")
        return cast("Any", array)[()]

    def _array(self, node: dict[str, Any], depth: int) -> Any:
        if node["d"] not in NUMPY_TYPES:
            raise MalformedError("an array of unknown dtype")
        kind = np.dtype(node["d"])
        shape = self._shape(node["s"], kind.itemsize, node["n"])
        # A copy is writable and does not keep the whole frame alive.
        return np.frombuffer(self._buffer(node), dtype=kind).reshape(shape).copy()

    def _tensor(self, node: dict[str, Any], depth: int) -> torch.Tensor:
        kind = TORCH_TYPES[node["d"]]
        shape = self._shape(node["s"], kind.itemsize, node["n"])
        content = bytearray(self._buffer(node))
        flat = (
            torch.frombuffer(content, dtype=torch.uint8).view(kind)
            if content
            else torch.empty(0, dtype=kind)
        )
        value = flat.reshape(shape)
        if "st" in node:
            value = self._strided(value, [self._whole(step) for step in node["st"]])
        if node.get("p"):
            return torch.nn.Parameter(value, requires_grad=bool(node.get("g")))
        return value.requires_grad_() if node.get("g") else value

    def _strided(self, value: torch.Tensor, strides: list[int]) -> torch.Tensor:
        """Return `value` with `strides`, which must be a permutation of the contiguous ones."""
        order = sorted(range(value.dim()), key=lambda axis: -strides[axis])
        laid = (
            value.permute(order)
            .contiguous()
            .permute([order.index(axis) for axis in range(value.dim())])
        )
        return laid if len(strides) == value.dim() else value

    @staticmethod
    def _whole(value: Any) -> int:
        if type(value) is not int or value < 0:
            raise MalformedError("not a size")
        return value

    def _shape(self, shape: Any, width: int, claimed: Any) -> tuple[int, ...]:
        sizes = tuple(self._whole(size) for size in shape)
        if len(sizes) > 16 or any(size > 2**40 for size in sizes):
            raise MalformedError("a shape that is too large")
        if math.prod(sizes) * width != claimed:
            raise MalformedError("a shape that does not match its bytes")
        return sizes

    def _buffer(self, node: dict[str, Any]) -> memoryview:
        at, size = self._whole(node["at"]), self._whole(node["n"])
        if at + size > len(self.body):
            raise MalformedError("bytes beyond the end of the frame")
        return self.body[at : at + size]


KINDS = frozenset(
    name.removeprefix("_") for name in (
        "_int", "_float", "_tuple", "_size", "_dict", "_set", "_bytes", "_dtype", "_other",
        "_dataset", "_scalar", "_array", "_tensor",
    )
)  # fmt: skip
