"""Encoded samples as what a model's forward pass takes: one packed row, or a padded row each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from etude.tuning.data.encoded import EncodedSample
from etude.tuning.data.packing import collate, collate_padded


def model_inputs(
    samples: Sequence[EncodedSample], packing: bool, device: torch.device
) -> dict[str, Any]:
    """Return input_ids, targets and what keeps samples apart, on `device`.

    Args:
        samples: those of one micro-batch.
        packing: one row, for a model within `packed_rows`; else a row each, padded on the right.
        device: the model's.
    """
    if packing:
        row = collate(samples)
        batch: dict[str, Any] = {
            "input_ids": row.input_ids,
            "targets": row.targets,
            "position_ids": row.position_ids,
            "segment_lengths": row.lengths,
        }
    else:
        padded = collate_padded(samples, pad_id=0)
        batch = {
            "input_ids": padded.input_ids,
            "targets": padded.targets,
            "attention_mask": padded.attention_mask,
        }
    return {
        name: value.to(device) if isinstance(value, torch.Tensor) else value
        for name, value in batch.items()
    }
