"""Token store: encoded samples in memory-mapped files.

A store is a folder, written under a temporary name and renamed when complete:

    tokens    int32, the conversations end to end
    trained   one byte per token, 1 for a target
    ends      int64, where each conversation ends
    sides     one byte per sample: its number of conversations, two for a pair
    desirable one byte per sample: 1 or 0 for an unpaired preference, else 2
    origins   origin of each sample, one per line
    about     statistics and file checksums as JSON; written last

A sample's arrays are views of the maps: the system loads pages on access and drops them when memory
is short.
"""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from etude.core.atomic_files import make_folder_aside, replace_folder
from etude.tuning.data.counts import EncodingStats, Tally
from etude.tuning.data.encoded import EncodedSample

NAMES = ("tokens", "trained", "ends", "sides", "desirable", "origins")
UNLABELLED = 2
FORM = 1


class TokenStore(Sequence[EncodedSample]):
    """Sequence of the samples in a store, created on access.

    Raises:
        ValueError: it is damaged, or in another format.
        OSError: it cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        about: Any = json.loads((folder / "about").read_text("utf-8"))
        match about:
            case {"form": form, "stats": str(told), "sums": dict()} if form == FORM:
                pass
            case _:
                raise ValueError(f"{folder} has another format")
        found = {name: _checksum(folder / name) for name in NAMES}
        if about["sums"] != found | {"stats": zlib.crc32(told.encode())}:
            raise ValueError(f"{folder} is damaged")
        self.stats = _stats_of(json.loads(told))
        self._ends = np.fromfile(folder / "ends", dtype=np.int64)
        sides = np.fromfile(folder / "sides", dtype=np.uint8)
        self._firsts = np.concatenate([[0], np.cumsum(sides, dtype=np.int64)])
        self._desirable = np.fromfile(folder / "desirable", dtype=np.uint8)
        self._origins = (folder / "origins").read_bytes()
        self._lines = np.flatnonzero(np.frombuffer(self._origins, dtype=np.uint8) == ord("\n"))
        self._tokens = _mapped(folder / "tokens", np.int32)
        self._trained = _mapped(folder / "trained", np.uint8)
        count, total = len(sides), int(self._ends[-1]) if len(self._ends) else 0
        whole = (
            len(self._desirable) == len(self._lines) == count == self.stats.samples
            and len(self._ends) == self._firsts[-1]
            and len(self._tokens) == len(self._trained) == total
        )
        if not whole:
            raise ValueError(f"{folder} is damaged")

    def __len__(self) -> int:
        return len(self._desirable)

    @overload
    def __getitem__(self, place: int) -> EncodedSample: ...
    @overload
    def __getitem__(self, place: slice) -> list[EncodedSample]: ...
    def __getitem__(self, place: int | slice) -> EncodedSample | list[EncodedSample]:
        if isinstance(place, slice):
            return [self._sample(index) for index in range(*place.indices(len(self)))]
        index = place + len(self) if place < 0 else place
        if not 0 <= index < len(self):
            raise IndexError(place)
        return self._sample(index)

    def __iter__(self) -> Iterator[EncodedSample]:
        return map(self._sample, range(len(self)))

    def _sample(self, index: int) -> EncodedSample:
        first, stop = int(self._firsts[index]), int(self._firsts[index + 1])
        begin = int(self._lines[index - 1]) + 1 if index else 0
        origin = self._origins[begin : int(self._lines[index])].decode("utf-8", "surrogatepass")
        rejected = self._side(first + 1, origin) if stop - first == 2 else None
        label = int(self._desirable[index])
        desirable = None if label == UNLABELLED else bool(label)
        return self._side(first, origin, rejected, desirable)

    def _side(
        self,
        side: int,
        origin: str,
        rejected: EncodedSample | None = None,
        desirable: bool | None = None,
    ) -> EncodedSample:
        start, stop = int(self._ends[side - 1]) if side else 0, int(self._ends[side])
        return EncodedSample(
            self._tokens[start:stop],
            self._trained[start:stop].view(np.bool_),
            origin,
            rejected,
            desirable,
        )


class StoreWriter:
    """Writes a store, sample by sample; `close` without `finish` leaves nothing behind.

    Args:
        folder: final path of the store.

    Raises:
        OSError: from any method, where the disk is full or the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._aside = make_folder_aside(folder)
        self._files = {name: (self._aside / name).open("wb") for name in NAMES}
        self._end = 0

    def add(self, sample: EncodedSample) -> None:
        """Add a sample."""
        sides = sample.sides
        for side in sides:
            self._end += len(side)
            self._files["tokens"].write(side.input_ids.astype(np.int32).tobytes())
            self._files["trained"].write(side.trained.astype(np.uint8).tobytes())
            self._files["ends"].write(np.int64(self._end).tobytes())
        self._files["sides"].write(bytes([len(sides)]))
        label = UNLABELLED if sample.desirable is None else int(sample.desirable)
        self._files["desirable"].write(bytes([label]))
        line = sample.origin.replace("\n", " ").encode("utf-8", "surrogatepass")
        self._files["origins"].write(line + b"\n")

    def finish(self, stats: EncodingStats) -> TokenStore:
        """Write the remaining files, rename the folder, and open it."""
        for file in self._files.values():
            file.close()
        sums = {name: _checksum(self._aside / name) for name in NAMES}
        told = json.dumps(asdict(stats))
        sums["stats"] = zlib.crc32(told.encode())
        about = json.dumps({"form": FORM, "sums": sums, "stats": told})
        (self._aside / "about").write_text(about, "utf-8")
        # An existing store is damaged, or equal and just written by another run: replace it.
        replace_folder(self._aside, self._folder)
        return TokenStore(self._folder)

    def close(self) -> None:
        """Remove the files, unless the store was finished."""
        for file in self._files.values():
            with suppress(OSError):
                file.close()
        shutil.rmtree(self._aside, ignore_errors=True)


def _checksum(file: Path) -> int:
    """Return the CRC-32 of a file, read in pieces: a gigabyte takes about a second."""
    value = 0
    with file.open("rb") as content:
        while piece := content.read(1 << 20):
            value = zlib.crc32(piece, value)
    return value


def _mapped(file: Path, dtype: Any) -> NDArray[Any]:
    if not file.stat().st_size:
        return np.zeros(0, dtype=dtype)
    # A plain array over the map: slicing a `memmap` is slower.
    return np.asarray(np.memmap(file, dtype=dtype, mode="r"))


def _stats_of(kept: dict[str, Any]) -> EncodingStats:
    fields = dict(kept)
    fields["dropped"] = {name: Tally(**tally) for name, tally in kept["dropped"].items()}
    fields |= {name: Tally(**kept[name]) for name in ("cut", "split", "folded")}
    fields["histogram"] = [(int(low), int(high), int(n)) for low, high, n in kept["histogram"]]
    return EncodingStats(**fields)
