"""Sequence classification: cross-entropy over classes, and metrics of the predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F

from etude.tuning.data.batch import Batch
from etude.tuning.data.encoded import EncodedSample
from etude.tuning.fusion.packed_heads import segment_logits
from etude.tuning.metrics.classification import macro_f1
from etude.tuning.metrics.metric import ACCURACY, MACRO_F1, Metric
from etude.tuning.objectives.base import LossSum, StepValues
from etude.tuning.objectives.cross_entropy import accumulator


class Classification:
    """Cross-entropy of each sample's class, averaged over samples.

    Args:
        classes: number of classes.
    """

    name = "classification"
    unit = "nats per sample"
    metrics: tuple[Metric, ...] = (ACCURACY, MACRO_F1)

    def __init__(self, classes: int) -> None:
        self.classes = classes

    def sides(self, sample: EncodedSample) -> Sequence[EncodedSample]:
        """Return the sample."""
        return (sample,)

    def normalizer(self, samples: Sequence[EncodedSample]) -> int:
        """Return the number of samples."""
        return len(samples)

    def step_values(self, model: Any, batches: Sequence[Batch]) -> StepValues:
        """Return nothing."""
        del model, batches
        return {}

    def loss(self, model: Any, batch: Batch, values: StepValues) -> LossSum:
        """Return Σ −log p(label), with the most probable class of each sample as output."""
        del values
        logits = class_logits(model, batch)
        labels = torch.tensor([cast("int", sample.label) for sample in batch], device=logits.device)
        total = F.cross_entropy(logits, labels, reduction="sum")
        predicted = logits.detach().argmax(dim=1)
        right = int((predicted == labels).sum())
        outputs = [int(index) for index in predicted]
        return LossSum(total, {"accuracy": (float(right), len(batch))}, outputs)

    def summarize(
        self, samples: Sequence[EncodedSample], outputs: Sequence[Any]
    ) -> dict[str, float]:
        """Return macro-F1 of the predictions."""
        labels = [cast("int", sample.label) for sample in samples]
        return {"macro_f1": macro_f1(labels, outputs, self.classes)}


def class_logits(model: Any, batch: Batch) -> torch.Tensor:
    """Return the logits of each sample's classes, (samples, classes), float32 at least.

    Args:
        model: a transformers model for sequence classification.
            It is within `row_layout` of the batch's layout.
        batch: packed or padded; its labels are not used.
    """
    inputs = batch.inputs(model.device)
    if batch.layout.packed:
        logits = segment_logits(model, inputs, len(batch))
    else:
        del inputs["targets"]
        logits = cast("torch.Tensor", model(**inputs).logits)
    return logits.to(accumulator(logits.dtype))
