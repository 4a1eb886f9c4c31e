"""log π_ref(y|x): what the model gave an answer before it was tuned.

With an adapter the base is there all the time: it is the model with the adapter switched off, so
no second model is held in memory. After full fine-tuning it is gone; the log-probabilities are
then computed once, before the first step, and kept in the run's folder.
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
from etude.tuning.data.batch import Batch
from etude.tuning.data.encoded import EncodedSample
from etude.tuning.data.packing import pack
from etude.tuning.fusion.packed_attention import packed_rows
from etude.tuning.objectives.logprobs import answer_log_probs


class Reference(Protocol):
    """Gives the log-probabilities of answers before tuning."""

    def log_probs(self, model: Any, batch: Batch) -> torch.Tensor:
        """Return log π_ref(y|x) of each sample's trained tokens, (S,), without a gradient."""
        ...


class AdapterDisabledReference:
    """The model itself, its adapter switched off."""

    def log_probs(self, model: Any, batch: Batch) -> torch.Tensor:
        """Compute them in one forward pass."""
        with still(model), adapter_disabled(model):
            return answer_log_probs(model, batch)


class CachedReference:
    """Numbers computed before training.

    Args:
        values: log π_ref(y|x) by `sample_key`.
    """

    def __init__(self, values: Mapping[str, float]) -> None:
        self.values = dict(values)

    def log_probs(self, model: Any, batch: Batch) -> torch.Tensor:
        """Look them up.

        Raises:
            RunError: a sample is none of those that the run began with.
        """
        keys = [sample_key(sample) for sample in batch]
        for key, sample in zip(keys, batch, strict=True):
            if key not in self.values:
                raise RunError(
                    f"{sample.origin}: full fine-tuning changed the base, and what it gave this "
                    "answer was not kept; evaluate on the run's own data, or tune an adapter"
                )
        values = [self.values[key] for key in keys]
        return torch.tensor(values, dtype=torch.float64, device=model.device)


def sample_key(sample: EncodedSample) -> str:
    """Return a text that stands for a sample's tokens and which of them are trained."""
    digest = hashlib.blake2b(sample.input_ids.tobytes(), digest_size=16)
    digest.update(sample.trained.tobytes())
    return digest.hexdigest()


def reference_log_probs(
    model: Any, samples: Iterable[EncodedSample], micro_tokens: int, progress: Progress
) -> dict[str, float]:
    """Compute log π(y|x) of every sample, equal ones once.

    Args:
        model: as it is before training.
        samples: their `rejected` are not looked at.
        micro_tokens: tokens of one forward pass.
        progress: told of each sample.

    Returns:
        By `sample_key`.
    """
    unique = {sample_key(sample): sample for sample in samples}
    keys, listed = list(unique), list(unique.values())
    found: dict[str, float] = {}
    progress.start("Measuring the base", len(listed), "answers")
    with still(model), packed_rows(model):
        for row in pack([len(sample) for sample in listed], micro_tokens):
            values = answer_log_probs(model, Batch([listed[i] for i in row]))
            found |= {keys[i]: float(v) for i, v in zip(row, values, strict=True)}
            progress.advance(len(row))
    progress.finish()
    return found


@contextmanager
def still(model: Any) -> Generator[None]:
    """Within, `model` is neither trained nor disturbed by dropout."""
    training = bool(model.training)
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)
