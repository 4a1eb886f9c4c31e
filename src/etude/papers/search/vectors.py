"""Vector store: embeddings of papers in one append-only file of fixed-size records.

A record is the paper's id, a checksum of the embedded text, and 384 signed bytes with one scale:
424 bytes, or 42 MB for 100,000 papers. The error is at most 1/254 of the vector's largest number,
and about 0.002 in a similarity. The last record of an id counts. A process killed during an append
leaves a partial record at the end, which the next writer truncates.
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
    """Return a checksum that shows whether a text has changed since it was embedded."""
    return zlib.crc32(text.encode("utf-8", "replace"))


class Vectors:
    """Embeddings by one model."""

    def __init__(self, folder: Path, model: str) -> None:
        """`model` is the fingerprint of its weights: other models' vectors are not comparable."""
        self.file = folder / f"{model}.i8"
        self._size = -1
        self._rows: dict[str, int] = {}
        self._data: Any = None

    def _load(self) -> None:
        """Memory-map the complete records of the current file."""
        import numpy as np

        kind = _record()
        try:
            size = self.file.stat().st_size // kind.itemsize
        except FileNotFoundError:
            size = 0
        if size == self._size:
            return
        self._data = np.memmap(self.file, kind, "r", shape=(size,)) if size else np.zeros(0, kind)
        # A later record of an id replaces an earlier one.
        self._rows = {key.decode(): row for row, key in enumerate(self._data["id"].tolist()) if key}
        self._size = size

    def __len__(self) -> int:
        self._load()
        return len(self._rows)

    def checksums(self) -> dict[str, int]:
        """Return the checksum of the embedded text of each paper."""
        self._load()
        texts = self._data["text"]
        return {key: int(texts[row]) for key, row in self._rows.items()}

    def append(self, ids: Sequence[str], texts: Sequence[str], found: np.ndarray[Any, Any]) -> None:
        """Add vectors: (papers, 384), float32. The caller holds the write lock."""
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
        """Drop all but the vectors of `ids`, if that saves at least a third of the file."""
        self._load()
        rows = sorted(self._rows[key] for key in set(ids) if key in self._rows)
        if len(rows) * 3 > self._size * 2:
            return
        # Readers keep their mapped file.
        replace_bytes(self.file, self._data[rows].tobytes())
        self._size = -1

    def vector(self, paper_id: str) -> np.ndarray[Any, Any] | None:
        """Return the vector of a paper, (384,), or None."""
        import numpy as np

        self._load()
        row = self._rows.get(paper_id)
        if row is None:
            return None
        record = self._data[row]
        return np.asarray(record["vector"], np.float32) * np.float32(record["scale"])

    def nearest(self, vector: np.ndarray[Any, Any], most: int) -> list[tuple[str, float]]:
        """Return the `most` papers with the largest dot product with `vector`, and the products."""
        import numpy as np

        self._load()
        scores = np.full(self._size, -np.inf, np.float32)
        for start in range(0, self._size, _CHUNK):
            part = self._data[start : start + _CHUNK]
            products = part["vector"].astype(np.float32) @ vector
            scores[start : start + _CHUNK] = products * part["scale"]
        # More than `most`, since older records of a paper are dropped below.
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
