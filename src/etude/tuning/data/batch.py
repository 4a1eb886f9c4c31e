"""Micro-batches and their layout: packed or padded.

Packed samples share one row, for a model within `packed_rows`; padded samples have a row each,
padded on the right. An objective's result does not depend on the layout.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from etude.tuning.data.encoded import EncodedSample
from etude.tuning.data.packing import bucket, collate, collate_padded, pack


@dataclass(frozen=True)
class Layout:
    """Layout of samples in rows."""

    packed: bool = True
    """Whether the samples of a batch share one row."""

    pad_id: int = 0
    """Padding token of padded rows."""

    length_multiple: int | None = None
    """Padded rows are grouped by length, and padded to a multiple of this; None: they are grouped
    as packed ones are, and padded to the longest."""

    alone: bool = False
    """Whether each sample has a micro-batch of its own: a model may compute a sample differently
    beside a longer one, padded as well as packed."""

    unpacked_because: str | None = None
    """Why samples are not packed although the recipe wants it; None: they are, or it does not."""

    def micro_batches(self, lengths: Sequence[int], capacity: int) -> list[list[int]]:
        """Return which samples go through the model together, at most `capacity` tokens of them."""
        if self.alone:
            return [[index] for index in range(len(lengths))]
        if self.length_multiple is None:
            return pack(lengths, capacity)
        return bucket(lengths, capacity, self.length_multiple)


PACKED_ROWS = Layout()


@dataclass(frozen=True)
class Batch:
    """Samples that the model processes together."""

    samples: Sequence[EncodedSample]
    layout: Layout = PACKED_ROWS

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[EncodedSample]:
        return iter(self.samples)

    def of(self, samples: Sequence[EncodedSample]) -> Batch:
        """Return other samples in this batch's layout: both answers of pairs, say."""
        return Batch(samples, self.layout)

    def inputs(self, device: torch.device) -> dict[str, Any]:
        """Return input_ids, targets and position or mask tensors, on `device`; or pixel_values."""
        images = [sample.image for sample in self.samples if sample.image is not None]
        if images:
            pixels = images[0].preparation.tensor([image.pixels() for image in images])
            return {"pixel_values": pixels.to(device)}
        if self.layout.packed:
            row = collate(self.samples)
            inputs: dict[str, Any] = {
                "input_ids": row.input_ids,
                "targets": row.targets,
                "position_ids": row.position_ids,
                "segment_lengths": row.lengths,
            }
        else:
            padded = collate_padded(
                self.samples, self.layout.pad_id, self.layout.length_multiple or 1
            )
            inputs = {
                "input_ids": padded.input_ids,
                "targets": padded.targets,
                "attention_mask": padded.attention_mask,
            }
        if any(sample.token_types is not None for sample in self.samples):
            inputs["token_type_ids"] = self._token_types(inputs["input_ids"])
        return {
            name: value.to(device) if isinstance(value, torch.Tensor) else value
            for name, value in inputs.items()
        }

    def _token_types(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return the token types in the layout of `input_ids`; padding has type 0."""
        types = torch.zeros_like(input_ids)
        place = 0
        for number, sample in enumerate(self.samples):
            row, start = (0, place) if self.layout.packed else (number, 0)
            if sample.token_types is not None:
                kinds = torch.from_numpy(sample.token_types)  # pyright: ignore[reportUnknownMemberType]
                types[row, start : start + len(sample)] = kinds.to(types)
            place += len(sample)
        return types
