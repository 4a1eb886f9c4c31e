"""Training objectives: the interface of losses, and supervised fine-tuning.

The loss of a step is Σ over its samples / `normalizer`. The sum runs over all micro-batches of the
step, so neither the loss nor its gradient depends on how the step is split into micro-batches.
Values that all micro-batches of a step need are computed before the first one (`step_values`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import torch

from etude.tuning.data.batch import Batch
from etude.tuning.data.encoded import EncodedSample
from etude.tuning.metrics.metric import Metric
from etude.tuning.objectives.cross_entropy import completion_loss

Sums = Mapping[str, tuple[float, int]]
"""Sums of metrics by name: the sum, and the number of values summed."""


StepValues = Mapping[str, Any]
"""What all micro-batches of a step share, by name, such as KTO's KL estimate."""


@dataclass(frozen=True)
class LossSum:
    """The loss of one micro-batch."""

    total: torch.Tensor
    """Σ loss of the samples, a scalar, not yet divided by the step's normaliser."""

    sums: Sums = field(default_factory=dict[str, tuple[float, int]])

    outputs: Sequence[Any] = ()
    """Model output for each sample, if metrics are computed from it: predicted classes."""


class Objective(Protocol):
    """A training objective."""

    name: str
    """Its name in `objective.kind`."""

    unit: str
    """Unit of the loss, for display."""

    metrics: tuple[Metric, ...]
    """Metrics that an evaluation reports beside the loss."""

    def sides(self, sample: EncodedSample) -> Sequence[EncodedSample]:
        """Return the sequences of a sample that the model processes."""
        ...

    def normalizer(self, samples: Sequence[EncodedSample]) -> float:
        """Return the divisor of a step's summed loss."""
        ...

    def step_values(self, model: Any, batches: Sequence[Batch]) -> StepValues:
        """Return the values shared by all micro-batches of a step."""
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
        """Return the metrics that are not means over samples, from the outputs of all samples."""
        ...


class SFT:
    """Cross-entropy over all trained tokens; for a pair, over the chosen answer."""

    name = "sft"
    unit = "nats per trained token"
    metrics: tuple[Metric, ...] = ()

    def sides(self, sample: EncodedSample) -> Sequence[EncodedSample]:
        """Return the sample; for a pair, its chosen side."""
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
        """Add the sums of a micro-batch."""
        for name, (value, count) in sums.items():
            total, counted = self._sums.get(name, (0.0, 0))
            self._sums[name] = total + value, counted + count

    def values(self) -> dict[str, float]:
        """Return the means by name; the margin is the difference of the mean rewards."""
        means = {name: total / count for name, (total, count) in self._sums.items() if count}
        if "reward_chosen" in means and "reward_rejected" in means:
            means["margin"] = means["reward_chosen"] - means["reward_rejected"]
        return means


def in_evaluation(objective: Objective) -> Objective:
    """Return the objective whose loss evaluations report: without weights of classes."""
    return cast("Objective", getattr(objective, "unweighted", objective))


def side_tokens(objective: Objective, sample: EncodedSample) -> int:
    """Return the number of tokens of a sample that the model processes."""
    return sum(len(side) for side in objective.sides(sample))
