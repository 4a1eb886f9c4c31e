"""A teacher's scores on disk: of each trained position, its likeliest words or a sample of them.

    about.json        what they are of: data, tokenizer, teacher, temperature, kind
    samples.npy       of each sample the hash of its tokens (16 bytes) and its positions
    scores-00000.npy  a record a position, in the order of samples.npy; some thousand each
    scores-00001.npy  ...

A record holds `words` and their `log_p` at the temperature; `rest`, the logarithm of the mass of
all other words; and, of a sample, `counts`, how often each word was drawn. Every file is whole or
not there, and which positions a file has follows from samples.npy, so that a killed process is
followed by one that writes what is missing. Records are read one sample at a time: nothing but the
index stays in memory. NumPy reads the files as they are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from etude.core.atomic_files import disk_reason, replace_file, replace_text
from etude.core.errors import DataError, RunError
from etude.core.lock import FileLock
from etude.tuning.data.encoded import EncodedSample

Kind = Literal["top_k", "sampled"]

FORM = 1
ABOUT, SAMPLES = "about.json", "samples.npy"
_POSITIONS = 4096
"""Positions of one file, at least."""

_INDEX = np.dtype([("key", "S32"), ("positions", "<u4")])


@dataclass(frozen=True)
class ScoresAbout:
    """What scores are of."""

    kind: Kind
    per_position: int
    """Words of a record; of `sampled`, draws."""
    temperature: float
    words: int
    """Words that the teacher's distribution is over."""
    seed: int
    """Of the draws."""
    data: str
    """Hash of all samples."""
    tokenizer: str
    teacher: str
    """Fingerprint of its weights."""
    teacher_name: str
    form: int = FORM

    @property
    def record(self) -> np.dtype[Any]:
        """The dtype of a position's record."""
        number = "<u2" if self.words <= 1 << 16 else "<u4"
        fields: list[Any] = [
            ("words", number, (self.per_position,)),
            ("log_p", "<f2", (self.per_position,)),
            ("rest", "<f4"),
        ]
        if self.kind == "sampled":
            count = "u1" if self.per_position < 1 << 8 else "<u2"
            fields.append(("counts", count, (self.per_position,)))
        return np.dtype(fields)


@dataclass(frozen=True)
class Scores:
    """Scores of N positions, k words each."""

    words: Tensor
    """(N, k) int64."""
    log_p: Tensor
    """(N, k) log-probabilities at the temperature."""
    rest: Tensor
    """(N,) logarithm of the mass of all other words."""
    shares: Tensor | None = None
    """(N, k) share of the draws that were this word; None: the likeliest words."""

    def __getitem__(self, place: slice) -> Scores:
        shares = None if self.shares is None else self.shares[place]
        return Scores(self.words[place], self.log_p[place], self.rest[place], shares)

    def to(self, device: torch.device) -> Scores:
        """Return them on a device."""
        shares = None if self.shares is None else self.shares.to(device)
        return Scores(self.words.to(device), self.log_p.to(device), self.rest.to(device), shares)


def sample_key(sample: EncodedSample) -> str:
    """Return the hash of all that a teacher sees of a sample, and of what is asked of it."""
    digest = hashlib.blake2b(sample.input_ids.tobytes(), digest_size=16)
    digest.update(sample.trained.tobytes())
    if sample.token_types is not None:
        digest.update(sample.token_types.tobytes())
    if sample.words is not None:
        digest.update(sample.words.pieces.tobytes())
    return digest.hexdigest()


def data_hash(keys: Sequence[str]) -> str:
    """Return the hash of samples, whatever their order."""
    return hashlib.blake2b("".join(sorted(set(keys))).encode(), digest_size=16).hexdigest()


class ScoreStore:
    """The scores in a folder, complete or not.

    Args:
        folder: with `ABOUT` and `SAMPLES`.

    Raises:
        DataError: it has no scores, or damaged ones.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.about = ScoresAbout(**json.loads((folder / ABOUT).read_text("utf-8")))
            index: NDArray[Any] = np.load(folder / SAMPLES)
        except FileNotFoundError:
            raise DataError(f"{folder} has no teacher scores") from None
        except (OSError, ValueError, TypeError) as error:
            raise DataError(f"{folder}: its teacher scores cannot be read: {error}") from None
        if self.about.form != FORM or index.dtype != _INDEX:
            raise DataError(f"{folder} has teacher scores of another version; make them anew")
        self.keys = [key.decode() for key in index["key"]]
        self.counts = [int(count) for count in index["positions"]]
        self.files: list[list[int]] = _divided(self.counts)
        """Numbers of the samples of each file."""
        self._places: dict[str, tuple[int, int, int]] = {}
        for number, samples in enumerate(self.files):
            first = 0
            for sample in samples:
                count = self.counts[sample]
                self._places[self.keys[sample]] = number, first, count
                first += count

    @classmethod
    def begin(
        cls, folder: Path, about: ScoresAbout, keys: Sequence[str], counts: Sequence[int]
    ) -> ScoreStore:
        """Make a folder without scores.

        Args:
            folder: to be made.
            about: what its scores will be of.
            keys: of the samples, each once.
            counts: positions of each.

        Raises:
            RunError: it cannot be written.
        """
        index = np.array(
            [(key.encode(), count) for key, count in zip(keys, counts, strict=True)], dtype=_INDEX
        )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _save(folder / SAMPLES, index)
            # Last, since it is what makes the folder one of scores.
            replace_text(folder / ABOUT, json.dumps(asdict(about), indent=2))
        except OSError as error:
            raise _cannot_write(folder, error) from None
        return cls(folder)

    @contextmanager
    def alone(self, waiting: Callable[[], object]) -> Generator[None]:
        """Context manager: be the only process that writes here; remove what killed ones left.

        Args:
            waiting: called once, before waiting for another process.

        Raises:
            RunError: the folder cannot be written.
        """
        try:
            lock = FileLock(self.folder / ".lock", wait=True, waiting=waiting)
            lock.acquire()
            for torn in self.folder.glob(".scores-*"):
                torn.unlink()
        except OSError as error:
            raise _cannot_write(self.folder, error) from None
        with lock:
            yield

    def missing(self) -> list[int]:
        """Return the numbers of the files that are not there."""
        return [number for number in range(len(self.files)) if not self._file(number).exists()]

    @property
    def bytes(self) -> int:
        """On disk."""
        return sum(file.stat().st_size for file in self.folder.glob("[!.]*"))

    @property
    def positions(self) -> int:
        """Positions of all samples."""
        return sum(self.counts)

    def write(self, number: int, records: NDArray[Any]) -> None:
        """Write a file: the records of its samples, in order.

        Raises:
            RunError: it cannot be written; nothing of it is left, all other files are whole.
        """
        assert len(records) == sum(self.counts[sample] for sample in self.files[number])
        try:
            _save(self._file(number), records)
        except OSError as error:
            raise _cannot_write(self.folder, error) from None

    def lacking(self, samples: Sequence[EncodedSample]) -> list[EncodedSample]:
        """Return the samples that these are no scores of."""
        return [sample for sample in samples if sample_key(sample) not in self._places]

    def covered(self) -> float:
        """Return the mean mass of the words that are stored, over all positions.

        Raises:
            DataError: a file is missing or damaged.
        """
        total = 0.0
        for number, samples in enumerate(self.files):
            count = sum(self.counts[sample] for sample in samples)
            rest = self._records(number, 0, count)["rest"].astype(np.float64)
            total += float((1 - np.exp(rest)).sum())
        return total / max(self.positions, 1)

    def read(self, samples: Sequence[EncodedSample]) -> Scores:
        """Return the scores of all positions of these samples, in order, float32.

        Raises:
            DataError: there are none of a sample, or a file is missing or damaged.
        """
        parts: list[NDArray[Any]] = []
        for sample in samples:
            place = self._places.get(sample_key(sample))
            if place is None:
                raise DataError(f"{sample.origin} has no teacher scores in {self.folder}")
            parts.append(self._records(*place))
        records = np.concatenate(parts)
        shares = None
        if self.about.kind == "sampled":
            counts = torch.from_numpy(records["counts"].astype(np.float32))  # pyright: ignore[reportUnknownMemberType]
            shares = counts / self.about.per_position
        words, log_p, rest = (
            torch.from_numpy(records[name].astype(kind))  # pyright: ignore[reportUnknownMemberType]
            for name, kind in (("words", np.int64), ("log_p", np.float32), ("rest", np.float32))
        )
        return Scores(words, log_p, rest, shares)

    def _file(self, number: int) -> Path:
        return self.folder / f"scores-{number:05d}.npy"

    def _records(self, number: int, first: int, count: int) -> NDArray[Any]:
        """Read records with plain reads: pages of a mapped file count as memory of the process."""
        file, record = self._file(number), self.about.record
        try:
            with file.open("rb") as content:
                version = np.lib.format.read_magic(content)
                assert version == (1, 0)
                shape, _, dtype = np.lib.format.read_array_header_1_0(content)
                if dtype != record or first + count > shape[0]:
                    raise ValueError("it has other records")
                content.seek(first * record.itemsize, 1)
                found = content.read(count * record.itemsize)
            return np.frombuffer(found, dtype=record, count=count)
        except (OSError, ValueError, AssertionError) as error:
            raise DataError(
                f"{file} cannot be read ({error}); delete it, and it is made anew"
            ) from None


def _save(file: Path, array: NDArray[Any]) -> None:
    def write(aside: Path) -> None:
        with aside.open("wb") as content:
            np.lib.format.write_array(content, array, version=(1, 0), allow_pickle=False)

    replace_file(file, write)


def _cannot_write(folder: Path, error: OSError) -> RunError:
    return RunError(
        f"cannot store teacher scores in {folder}: {disk_reason(error)}; those that are there "
        "stay, and the same command goes on with them"
    )


def _divided(counts: Sequence[int]) -> list[list[int]]:
    """Divide samples among files, of `_POSITIONS` positions or just over it."""
    files: list[list[int]] = []
    held = _POSITIONS
    for sample, count in enumerate(counts):
        if held >= _POSITIONS:
            files.append([])
            held = 0
        files[-1].append(sample)
        held += count
    return files
