"""Seeded draws of samples from a stream: at most so many, or from several files by weight.

A draw depends on the seed and on each sample's content and place alone.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Mapping, Sequence
from heapq import heappush, heappushpop
from typing import Literal

import numpy as np

from etude.core.errors import DataError
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.disk_buffer import DiskBuffer
from etude.tuning.data.schema import Sample
from etude.tuning.data.sources.files import labels_of


class Draw:
    """A seeded random draw of at most `limit` samples from a stream, in stream order.

    Each sample gets a hash of its content, position and the seed; the lowest are drawn. Memory is
    that of the drawn samples; without a limit, see `DiskBuffer`.
    """

    def __init__(self, limit: int | None, seed: int) -> None:
        self.limit = limit
        self.seen = 0
        self._seed = seed
        self._all = DiskBuffer()
        # (minus the hash, place in the stream, sample): the root is the highest drawn hash.
        self._kept: list[tuple[float, int, Sample]] = []

    def add(self, sample: Sample) -> None:
        """Take in the next sample of the stream."""
        place = self.seen
        self.seen += 1
        if self.limit is None:
            self._all.append(sample)
            return
        number = unit(content_key(sample) + sample.origin.encode(), self._seed, "draw")
        entry = (-number, place, sample)
        if len(self._kept) < self.limit:
            heappush(self._kept, entry)
        else:
            heappushpop(self._kept, entry)

    def clear(self) -> None:
        """Forget all samples."""
        self.seen = 0
        self._kept.clear()
        self._all.clear()

    def samples(self) -> Sequence[Sample]:
        """Return what is drawn."""
        if self.limit is None:
            return self._all
        return [sample for _, _, sample in sorted(self._kept, key=lambda entry: entry[1])]

    def notes(self, side: str) -> list[str]:
        """Return what was not drawn, for the report."""
        if self.limit is None or self.seen <= self.limit:
            return []
        return [f"drew {self.limit:,} of {self.seen:,} {side} samples"]


def mixed_draw(spec: DataSpec, seed: int) -> MixedDraw:
    """Return the draw from several files that the recipe asks for."""
    files = spec.train_files
    weights = [file.weight or 0.0 for file in files]
    return MixedDraw(dict(zip(labels_of(files), weights, strict=True)), spec.max_train, seed)


class MixedDraw:
    """A seeded draw from several files, each with its share of the samples, in stream order.

    As many samples as the shares allow are drawn: the file with the fewest samples for its weight
    gives all of them. No sample is drawn twice.

    Args:
        weights: by the name of the file, as rows are named by.
        limit: most samples in all.
        seed: of the draw.
    """

    def __init__(self, weights: Mapping[str, float], limit: int | None, seed: int) -> None:
        self.limit = limit
        self.seen = 0
        self._weights = dict(weights)
        self._index = {name: number for number, name in enumerate(weights)}
        self._seed = seed
        self._all = DiskBuffer()
        self._numbers = array("d")
        self._files = array("H")
        self._drawn: list[int] = []

    def add(self, sample: Sample) -> None:
        """Take in the next sample of the stream."""
        self.seen += 1
        self._all.append(sample)
        self._files.append(self._index[sample.origin.rpartition(":")[0]])
        key = content_key(sample) + sample.origin.encode()
        self._numbers.append(unit(key, self._seed, "draw"))

    def clear(self) -> None:
        """Forget all samples."""
        self.seen = 0
        self._all.clear()
        self._numbers, self._files = array("d"), array("H")

    def samples(self) -> Sequence[Sample]:
        """Return what is drawn.

        Raises:
            DataError: a file has no training sample.
        """
        files = np.asarray(self._files)
        numbers = np.asarray(self._numbers)
        counts = np.bincount(files, minlength=len(self._weights))
        for name, count in zip(self._weights, counts, strict=True):
            if not count:
                raise DataError(f"{name} has no training sample, but a weight in data.train")
        shares = np.array(list(self._weights.values()))
        shares /= shares.sum()
        total = float((counts / shares).min())
        if self.limit is not None:
            total = min(total, self.limit)
        # A product that rounding left just below a whole number is that number.
        wanted = np.minimum(np.floor(total * shares + 1e-9), counts).astype(int)
        chosen = np.zeros(len(files), dtype=np.bool_)
        for number, count in enumerate(wanted):
            places = np.flatnonzero(files == number)
            order = np.argsort(numbers[places], kind="stable")
            chosen[places[order[:count]]] = True
        self._drawn = [int(count) for count in wanted]
        if not chosen.any():
            raise DataError(
                "the weights of data.train leave no sample; add samples, or change the weights"
            )
        drawn = DiskBuffer()
        for sample, taken in zip(self._all, chosen, strict=True):
            if taken:
                drawn.append(sample)
        return drawn

    def notes(self, side: str) -> list[str]:
        """Return how many samples each file gave, after `samples`."""
        counts = np.bincount(np.asarray(self._files), minlength=len(self._weights))
        whole = sum(self._drawn)
        told = [
            f"{drawn:,} of {count:,} from {name} ({drawn / whole:.1%})"
            for name, drawn, count in zip(self._weights, self._drawn, counts, strict=True)
        ]
        return [f"{side} samples drawn by weight: {', '.join(told)}"]


def content_key(sample: Sample) -> bytes:
    """Return a 16-byte hash of a sample that ignores surrounding white space."""
    digest = hashlib.blake2b(digest_size=16)
    if sample.text is not None:
        digest.update(sample.text.strip().encode("utf-8", "surrogatepass"))
    for message in sample.messages:
        digest.update(message.canonical().encode("utf-8", "surrogatepass"))
    for message in sample.rejected:
        digest.update(f"\0worse{message.canonical()}".encode("utf-8", "surrogatepass"))
    if sample.desirable is not None:
        digest.update(b"\0wanted" if sample.desirable else b"\0unwanted")
    if sample.pair is not None:
        digest.update(f"\0pair {sample.pair.strip()}".encode("utf-8", "surrogatepass"))
    if sample.label is not None:
        digest.update(f"\0class {sample.label}".encode("utf-8", "surrogatepass"))
    for mark, text in (("positive", sample.positive), ("negative", sample.negative)):
        if text is not None:
            digest.update(f"\0{mark} {text.strip()}".encode("utf-8", "surrogatepass"))
    if sample.tags:
        digest.update(f"\0tags {' '.join(sample.tags)}".encode("utf-8", "surrogatepass"))
    if sample.tools:
        digest.update(json.dumps(sample.tools, sort_keys=True).encode("utf-8", "surrogatepass"))
    return digest.digest()


def unit(key: bytes, seed: int, purpose: Literal["side", "draw", "fold"]) -> float:
    """Return a number in [0, 1) that depends on `key`, `seed` and `purpose` alone."""
    digest = hashlib.blake2b(key, digest_size=8, person=purpose.encode(), salt=_salt(seed))
    return int.from_bytes(digest.digest(), "big") / 2**64


def _salt(seed: int) -> bytes:
    return (seed % 2**128).to_bytes(16, "big")
