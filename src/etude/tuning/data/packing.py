"""Best-fit-decreasing sequence packing, and collation of packed and padded batches.

A micro-batch is one row of T tokens made of several samples (segments). Segments are isolated in
three ways: positions restart at 0 in each; attention is confined to the segment (the batch carries
the segment lengths for the model's attention); and no target crosses a boundary. The loss equals
that of the same samples padded to equal length, without the cost of padding.

    input_ids    a0 a1 a2 a3 | b0 b1 b2
    position_ids  0  1  2  3 |  0  1  2
    targets      a1 a2 a3  · | b1 b2  ·      · is IGNORED, as is every untrained token

Samples are assigned to rows by best-fit decreasing (Johnson et al. 1974): the longest first, each
into the fullest row with enough space. This needs at most 11/9 of the rows of the best packing,
plus one.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from etude.tuning.data.encoded import EncodedSample

IGNORED = -100
"""The target that cross-entropy ignores."""

ROW_MULTIPLE = 64
"""Row lengths are padded to a multiple of this. A CPU matrix library caches code per shape, about a
megabyte each: rows of arbitrary length would overflow its cache with hundreds of shapes
(benchmarks/row_lengths.py)."""

Step = list[list[int]]
"""One optimiser step: its micro-batches, each a list of sample indices."""


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Distribute items over bins by best-fit decreasing.

    Args:
        lengths: tokens of each item.
        capacity: tokens per bin; a longer item gets its own bin.

    Returns:
        Bins of indices into `lengths`, every index once, in the order in which bins were opened.
    """
    bins: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # (room left, bin), ascending
    for index in sorted(range(len(lengths)), key=lambda item: (-lengths[item], item)):
        length = lengths[index]
        place = bisect_left(rooms, (length, -1))
        if place == len(rooms):
            bins.append([index])
            room, number = capacity - length, len(bins) - 1
        else:
            room, number = rooms.pop(place)
            bins[number].append(index)
            room -= length
        if room > 0:
            insort(rooms, (room, number))
    return bins


def bucket(lengths: Sequence[int], capacity: int, multiple: int) -> list[list[int]]:
    """Distribute items over batches of rows padded to one length, similar lengths together.

    Args:
        lengths: tokens of each item.
        capacity: tokens a batch may hold, padding included; a longer item gets one of its own.
        multiple: rows are padded to a multiple of it, so that few shapes occur.

    Returns:
        Batches of indices into `lengths`, every index once, the longest rows first.
    """
    batches: list[list[int]] = []
    width = 0
    for index in sorted(range(len(lengths)), key=lambda item: (-lengths[item], item)):
        if not batches or (len(batches[-1]) + 1) * width > capacity:
            batches.append([])
            width = padded_length(lengths[index], multiple)
        batches[-1].append(index)
    return batches


def padded_length(length: int, multiple: int) -> int:
    """Return the next multiple of `multiple`."""
    return -(-length // multiple) * multiple


def plan_steps(
    lengths: Sequence[int],
    batch_samples: int,
    micro_tokens: int,
    seed: int,
    epoch: int,
    group: Callable[[Sequence[int], int], list[list[int]]] = pack,
    order: Sequence[int] | None = None,
) -> list[Step]:
    """Plan one epoch: the samples of each optimiser step, and the packing of its rows.

    A pure function of its arguments, so a resumed run uses the same plan. Each epoch has its own
    permutation; the last step takes the remaining samples.

    Args:
        lengths: tokens of each sample.
        batch_samples: samples an optimiser step.
        micro_tokens: tokens of one micro-batch; a longer sample is alone in its own.
        seed: of the run.
        epoch: from 0.
        group: cuts the samples of a step into micro-batches, given lengths and `micro_tokens`.
        order: of the samples; None: a permutation by seed and epoch.
    """
    shuffled: list[int] = np.random.default_rng([seed, epoch]).permutation(len(lengths)).tolist()
    order = shuffled if order is None else order
    steps: list[Step] = []
    for start in range(0, len(order), batch_samples):
        members = order[start : start + batch_samples]
        rows = group([lengths[index] for index in members], micro_tokens)
        steps.append([[members[item] for item in row] for row in rows])
    return steps


def balanced_order(classes: Sequence[int], seed: int, epoch: int) -> list[int]:
    """Return as many samples as there are, each class as often as any other, in random order.

    A large class gives a random part of its samples, another in each epoch; a small one gives all
    of them, several times. A pure function of its arguments.

    Args:
        classes: class of each sample.
        seed: of the run.
        epoch: from 0.
    """
    random = np.random.default_rng([seed, epoch])
    labels = np.asarray(classes)
    found, counts = np.unique(labels, return_counts=True)
    quotas = np.full(len(found), len(labels) // len(found))
    quotas[random.permutation(len(found))[: len(labels) % len(found)]] += 1
    drawn: list[np.ndarray] = []
    for label, count, quota in zip(found, counts, quotas, strict=True):
        members = np.flatnonzero(labels == label)
        rounds = -(-int(quota) // int(count))
        drawn.append(np.concatenate([random.permutation(members) for _ in range(rounds)])[:quota])
    order: list[int] = random.permutation(np.concatenate(drawn)).tolist()
    return order


@dataclass(frozen=True)
class PackedBatch:
    """One row of T tokens made of whole samples."""

    input_ids: torch.Tensor
    """(1, T) int64."""

    position_ids: torch.Tensor
    """(1, T) int64, from 0 in each segment."""

    targets: torch.Tensor
    """(1, T) int64: the token that position t predicts, or IGNORED. Already shifted."""

    lengths: list[int]
    """Length of each segment, with padding last; their sum is T."""

    @property
    def trained_tokens(self) -> int:
        """Number of targets in the loss."""
        return int((self.targets != IGNORED).sum())


@dataclass(frozen=True)
class PaddedBatch:
    """B rows, one sample each, padded on the right to the longest, T tokens."""

    input_ids: torch.Tensor
    """(B, T) int64."""

    attention_mask: torch.Tensor
    """(B, T) int64, 1 on tokens and 0 on padding."""

    targets: torch.Tensor
    """(B, T) int64, as in PackedBatch; IGNORED on padding."""

    @property
    def trained_tokens(self) -> int:
        """Number of targets in the loss."""
        return int((self.targets != IGNORED).sum())


def collate(samples: Sequence[EncodedSample]) -> PackedBatch:
    """Concatenate samples and pad to a multiple of `ROW_MULTIPLE` tokens.

    The padding is an untrained segment of its own.
    """
    lengths = [len(sample) for sample in samples]
    filling = -sum(lengths) % ROW_MULTIPLE
    nothing = np.zeros(filling, dtype=np.int64)
    segments = [*lengths, filling] if filling else lengths
    return PackedBatch(
        input_ids=_row(np.concatenate([*(sample.input_ids for sample in samples), nothing])),
        position_ids=_row(np.concatenate([np.arange(length) for length in segments])),
        targets=_row(np.concatenate([*map(_targets, samples), nothing + IGNORED])),
        lengths=segments,
    )


def collate_padded(samples: Sequence[EncodedSample], pad_id: int, multiple: int = 1) -> PaddedBatch:
    """Stack samples, one a row, padded on the right with `pad_id` to a multiple of `multiple`."""
    longest = max(len(sample) for sample in samples)
    shape = (len(samples), padded_length(longest, multiple))
    input_ids = np.full(shape, pad_id, dtype=np.int64)
    attention_mask = np.zeros(shape, dtype=np.int64)
    targets = np.full(shape, IGNORED, dtype=np.int64)
    for row, sample in enumerate(samples):
        input_ids[row, : len(sample)] = sample.input_ids
        attention_mask[row, : len(sample)] = 1
        targets[row, : len(sample)] = _targets(sample)
    return PaddedBatch(
        torch.as_tensor(input_ids), torch.as_tensor(attention_mask), torch.as_tensor(targets)
    )


def _targets(sample: EncodedSample) -> np.ndarray:
    """Return (T,) int64: the next token if it is trained, else IGNORED."""
    targets = np.full(len(sample), IGNORED, dtype=np.int64)
    targets[:-1] = np.where(sample.trained[1:], sample.input_ids[1:], IGNORED)
    return targets


def _row(values: np.ndarray) -> torch.Tensor:
    return torch.as_tensor(values.astype(np.int64))[None]
