"""Disk-backed sample buffer: memory does not grow with the number of rows."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Iterator, Sequence
from typing import IO, overload

from etude.core.errors import DataError
from etude.core.paths import home
from etude.tuning.data.schema import Sample

IN_MEMORY = 20_000
CHUNK = 500


class DiskBuffer(Sequence[Sample]):
    """An append-only sequence for sequential passes.

    The first `IN_MEMORY` samples stay in memory, the rest go to an unnamed file, which is freed
    when the process ends. If no file can be created, all stay in memory.
    """

    def __init__(self, in_memory: int = IN_MEMORY, chunk: int = CHUNK) -> None:
        self._in_memory, self._chunk = in_memory, chunk
        self._first: list[Sample] = []
        self._waiting: list[Sample] = []
        self._places: list[int] = []
        self._file: IO[bytes] | None = None
        self._read: tuple[int, list[Sample]] = (-1, [])

    def append(self, sample: Sample) -> None:
        """Add a sample."""
        if len(self._first) < self._in_memory:
            self._first.append(sample)
            return
        self._waiting.append(sample)
        if len(self._waiting) == self._chunk:
            self._put_away()

    def _put_away(self) -> None:
        try:
            if self._file is None:
                home().mkdir(parents=True, exist_ok=True)
                # Not the system's temporary directory, which is often in memory.
                self._file = tempfile.TemporaryFile(dir=home())  # noqa: SIM115 - as long as we
            self._file.seek(0, 2)
            place = self._file.tell()
            pickle.dump(self._waiting, self._file, pickle.HIGHEST_PROTOCOL)
        except OSError as error:  # a full disk, a read-only directory
            if self._places:
                raise DataError(
                    f"cannot store samples in {home()}: {error.strerror}; free some space, or "
                    "set data.max_train"
                ) from error
            self._in_memory = 2**63
            self._first += self._waiting
        else:
            self._places.append(place)
        self._waiting = []

    def clear(self) -> None:
        """Remove all samples."""
        self._first, self._waiting, self._places = [], [], []
        self._read = (-1, [])

    def __len__(self) -> int:
        return len(self._first) + len(self._places) * self._chunk + len(self._waiting)

    def __iter__(self) -> Iterator[Sample]:
        yield from self._first
        for number in range(len(self._places)):
            yield from self._chunk_of(number)
        yield from self._waiting

    def _chunk_of(self, number: int) -> list[Sample]:
        if self._read[0] != number:
            assert self._file is not None
            self._file.seek(self._places[number])
            # Safe to unpickle: an unnamed file of this process.
            self._read = number, pickle.load(self._file)
        return self._read[1]

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(index)
        if place < len(self._first):
            return self._first[place]
        number, inside = divmod(place - len(self._first), self._chunk)
        return (
            self._waiting[inside] if number == len(self._places) else self._chunk_of(number)[inside]
        )
