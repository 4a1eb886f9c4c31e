"""Embeddings of papers on disk: one file of records of one size, only ever appended to.

A record is the paper's id, a checksum of the text that was embedded, and 384 signed bytes with one
scale, which is 424 bytes, or 42 MB for 100,000 papers. A number is off by at most 1/254 of the
vector's largest; a likeness by about 0.002. The last record of an id holds. A process killed while
it appends leaves part of a record at the end, which the next writer cuts off.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etude.core.atomic_files import replace_bytes
from etude.papers.search.embed import WIDTH

if TYPE_CHECKING:
    import numpy as np

_CHUNK = 8192


def _record() -> np.dtype[Any]:
    import numpy as np

    return np.dtype([("id", "S32"), ("text", "<u4"), ("scale", "<f4"), ("vector", "i1", WIDTH)])


def checksum(text: str) -> int:
    """Tells whether a text was embedded as it is now."""
    return zlib.crc32(text.encode("utf-8", "replace"))


class Vectors:
    """The embeddings that one model made."""

    def __init__(self, folder: Path, model: str) -> None:
        """`model` is the fingerprint of its weights: vectors of two models cannot be compared."""
        self.file = folder / f"{model}.i8"
        self._size = -1
        self._rows: dict[str, int] = {}
        self._data: Any = None

    def _load(self) -> None:
        """Map the file as it is now; whole records only."""
        import numpy as np

        kind = _record()
        try:
            size = self.file.stat().st_size // kind.itemsize
        except FileNotFoundError:
            size = 0
        if size == self._size:
            return
        self._data = np.memmap(self.file, kind, "r", shape=(size,)) if size else np.zeros(0, kind)
        # A later record of one id takes the place of an earlier one.
        self._rows = {key.decode(): row for row, key in enumerate(self._data["id"].tolist()) if key}
        self._size = size

    def __len__(self) -> int:
        self._load()
        return len(self._rows)

    def checksums(self) -> dict[str, int]:
        """Of the text behind each paper's vector."""
        self._load()
        texts = self._data["text"]
        return {key: int(texts[row]) for key, row in self._rows.items()}

    def append(self, ids: Sequence[str], texts: Sequence[str], found: np.ndarray[Any, Any]) -> None:
        """Add vectors: (papers, 384), float32. The caller holds the lock of writing."""
        import numpy as np

        kind = _record()
        records = np.zeros(len(ids), kind)
        records["id"] = [key.encode() for key in ids]
        records["text"] = [checksum(text) for text in texts]
        largest = np.abs(found).max(1)
        records["scale"] = largest / 127
        records["vector"] = np.rint(found * (127 / np.maximum(largest, 1e-12))[:, None])
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("ab") as file:
            file.truncate(file.tell() // kind.itemsize * kind.itemsize)
            file.write(records.tobytes())
            file.flush()
            os.fsync(file.fileno())

    def keep(self, ids: Sequence[str]) -> None:
        """Drop all but the vectors of `ids`, where that saves at least a third of the file."""
        self._load()
        rows = sorted(self._rows[key] for key in set(ids) if key in self._rows)
        if len(rows) * 3 > self._size * 2:
            return
        # Readers keep the file that they have mapped.
        replace_bytes(self.file, self._data[rows].tobytes())
        self._size = -1

    def vector(self, paper_id: str) -> np.ndarray[Any, Any] | None:
        """The vector of a paper, (384,), or None."""
        import numpy as np

        self._load()
        row = self._rows.get(paper_id)
        if row is None:
            return None
        record = self._data[row]
        return np.asarray(record["vector"], np.float32) * np.float32(record["scale"])

    def nearest(self, vector: np.ndarray[Any, Any], most: int) -> list[tuple[str, float]]:
        """The `most` papers whose vectors have the largest product with `vector`, with it."""
        import numpy as np

        self._load()
        scores = np.full(self._size, -np.inf, np.float32)
        for start in range(0, self._size, _CHUNK):
            part = self._data[start : start + _CHUNK]
            products = part["vector"].astype(np.float32) @ vector
            scores[start : start + _CHUNK] = products * part["scale"]
        # More than are asked for: older records of a paper are left out below.
        count = min(self._size, most * 2 + 16)
        found: list[tuple[str, float]] = []
        if not count:
            return found
        top: list[int] = np.argpartition(-scores, count - 1)[:count].tolist()
        for row in sorted(top, key=lambda row: (-float(scores[row]), row)):
            key = self._data[row]["id"].decode()
            if self._rows.get(key) == row:
                found.append((key, float(scores[row])))
        return found[:most]
