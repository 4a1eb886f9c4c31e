"""What is minimised, so that the loop and the evaluation need not know what that is.

A step's loss is Σ over its samples / `normalizer`. The sum is over all micro-batches of the step,
so neither the loss nor its gradient depends on how the step was cut into them. Values that all
micro-batches of a step need are computed before the first of them (`step_values`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from etude.tuning.data.batch import Batch
from etude.tuning.data.encoded import EncodedSample
from etude.tuning.metrics.metric import Metric
from etude.tuning.objectives.cross_entropy import completion_loss

Sums = Mapping[str, tuple[float, int]]
"""What people look at beside the loss, by name: a sum, and how many were summed."""


StepValues = Mapping[str, float]
"""Values that all micro-batches of a step need, by name: KTO's estimate of the divergence."""


@dataclass(frozen=True)
class LossSum:
    """The loss of one micro-batch."""

    total: torch.Tensor
    """Σ loss of its samples, a scalar, to be divided by the step's normaliser."""

    sums: Sums = field(default_factory=dict[str, tuple[float, int]])

    outputs: Sequence[Any] = ()
    """What the model gave each sample, where metrics are computed from it: predicted classes."""


class Objective(Protocol):
    """What is minimised."""

    name: str
    """As in `objective.kind`."""

    unit: str
    """Of the loss, for people."""

    metrics: tuple[Metric, ...]
    """What an evaluation reports beside the loss."""

    def sides(self, sample: EncodedSample) -> Sequence[EncodedSample]:
        """Return what of a sample goes through the model."""
        ...

    def normalizer(self, samples: Sequence[EncodedSample]) -> int:
        """Return what the summed loss of all samples of a step is divided by."""
        ...

    def step_values(self, model: Any, batches: Sequence[Batch]) -> StepValues:
        """Return what the micro-batches of a step need, given all of them."""
        ...

    def loss(self, model: Any, batch: Batch, values: StepValues) -> LossSum:
        """Return the summed loss of one micro-batch.

        Args:
            model: within `packed_rows` where the batch is packed.
            batch: the micro-batch.
            values: what `step_values` returned for the step.
        """
        ...

    def summarize(
        self, samples: Sequence[EncodedSample], outputs: Sequence[Any]
    ) -> dict[str, float]:
        """Return the metrics that are no means over samples, from the outputs of all of them."""
        ...


class SFT:
    """Cross-entropy of the answers, every trained token alike; of a pair, the better answer."""

    name = "sft"
    unit = "nats per trained token"
    metrics: tuple[Metric, ...] = ()

    def sides(self, sample: EncodedSample) -> Sequence[EncodedSample]:
        """Return the sample; of a pair, its better side."""
        return (sample,)

    def normalizer(self, samples: Sequence[EncodedSample]) -> int:
        """Return the number of trained tokens."""
        return sum(sample.trained_tokens for sample in samples)

    def step_values(self, model: Any, batches: Sequence[Batch]) -> StepValues:
        """Return nothing."""
        del model, batches
        return {}

    def loss(self, model: Any, batch: Batch, values: StepValues) -> LossSum:
        """Return Σ cross-entropy over the trained tokens; see `completion_loss`."""
        del values
        return LossSum(completion_loss(model, **batch.inputs(model.device)))

    def summarize(
        self, samples: Sequence[EncodedSample], outputs: Sequence[Any]
    ) -> dict[str, float]:
        """Return nothing."""
        del samples, outputs
        return {}


class MeanMetrics:
    """Means over several micro-batches."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[float, int]] = {}

    def add(self, sums: Sums) -> None:
        """Take in a micro-batch."""
        for name, (value, count) in sums.items():
            total, counted = self._sums.get(name, (0.0, 0))
            self._sums[name] = total + value, counted + count

    def values(self) -> dict[str, float]:
        """Return the means by name; the margin is that of the mean rewards."""
        means = {name: total / count for name, (total, count) in self._sums.items() if count}
        if "reward_chosen" in means and "reward_rejected" in means:
            means["margin"] = means["reward_chosen"] - means["reward_rejected"]
        return means


def side_tokens(objective: Objective, sample: EncodedSample) -> int:
    """Return the tokens of a sample that go through the model."""
    return sum(len(side) for side in objective.sides(sample))
