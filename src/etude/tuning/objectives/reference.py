"""Reference model: log-probabilities log π_ref(y|x) of answers before tuning.

With an adapter the reference is the same model with the adapter disabled, so no second model is
held in memory. Full fine-tuning overwrites the base; the log-probabilities are then computed once
before the first step and cached in the run's folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import torch

from etude.core.errors import RunError
from etude.core.progress import Progress
from etude.tuning.adapters.multi_adapter import adapter_disabled
from etude.tuning.data.batch import PACKED_ROWS, Batch, Layout
from etude.tuning.data.encoded import EncodedSample
from etude.tuning.fusion.layout import row_layout
from etude.tuning.objectives.logprobs import answer_log_probs


class Reference(Protocol):
    """Source of reference log-probabilities."""

    def log_probs(self, model: Any, batch: Batch) -> torch.Tensor:
        """Return log π_ref(y|x) of each sample's trained tokens, (S,), without a gradient."""
        ...


class AdapterDisabledReference:
    """Reference computed by the model itself, with its adapter disabled."""

    def log_probs(self, model: Any, batch: Batch) -> torch.Tensor:
        """Compute the log-probabilities in one forward pass."""
        with still(model), adapter_disabled(model):
            return answer_log_probs(model, batch)


class CachedReference:
    """Reference log-probabilities computed before training.

    Args:
        values: log π_ref(y|x) by `sample_key`.
    """

    def __init__(self, values: Mapping[str, float]) -> None:
        self.values = dict(values)

    def log_probs(self, model: Any, batch: Batch) -> torch.Tensor:
        """Look up the cached log-probabilities.

        Raises:
            RunError: a sample is not in the cache.
        """
        keys = [sample_key(sample) for sample in batch]
        for key, sample in zip(keys, batch, strict=True):
            if key not in self.values:
                raise RunError(
                    f"{sample.origin}: full fine-tuning overwrote the base, and its "
                    "log-probability of this answer was not cached; evaluate on the run's own data"
                )
        values = [self.values[key] for key in keys]
        return torch.tensor(values, dtype=torch.float64, device=model.device)


def sample_key(sample: EncodedSample) -> str:
    """Return a cache key for a sample's tokens and their training mask."""
    digest = hashlib.blake2b(sample.input_ids.tobytes(), digest_size=16)
    digest.update(sample.trained.tobytes())
    return digest.hexdigest()


def reference_log_probs(
    model: Any,
    samples: Iterable[EncodedSample],
    micro_tokens: int,
    progress: Progress,
    *,
    layout: Layout = PACKED_ROWS,
) -> dict[str, float]:
    """Compute log π(y|x) of every distinct sample.

    Args:
        model: the model before training.
        samples: their `rejected` is ignored.
        micro_tokens: maximum number of tokens in one forward pass.
        progress: reports each sample.
        layout: packed or padded rows.

    Returns:
        Log-probability by `sample_key`.
    """
    unique = {sample_key(sample): sample for sample in samples}
    keys, listed = list(unique), list(unique.values())
    found: dict[str, float] = {}
    progress.start("Computing reference log-probabilities", len(listed), "answers")
    with still(model), row_layout(model, layout):
        for row in layout.micro_batches([len(sample) for sample in listed], micro_tokens):
            values = answer_log_probs(model, Batch([listed[i] for i in row], layout))
            found |= {keys[i]: float(v) for i, v in zip(row, values, strict=True)}
            progress.advance(len(row))
    progress.finish()
    return found


@contextmanager
def still(model: Any) -> Generator[None]:
    """Context manager: disable gradients and dropout of `model`."""
    training = bool(model.training)
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)
