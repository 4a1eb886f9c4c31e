"""Losses of a head on a whole text: one class, several labels, or a number.

    one class        −w_c (1 − p_c)^γ log p_c                     over Σ w_c
      smoothed       −(1 − ε) w_c log p_c − ε/C Σ_k w_k log p_k   over Σ w_c
    several labels   Σ_j −w_j y_j (1 − p_j)^γ log p_j
                         − (1 − y_j) p_j^γ log(1 − p_j)           over samples × labels
    a number         (z − (y − mean) / deviation)²                over samples

p is the softmax or the sigmoid of the logits. With γ = 0 these are CrossEntropyLoss(weight),
BCEWithLogitsLoss(pos_weight) and MSELoss of PyTorch, normalised over the whole optimiser step;
γ > 0 is the focal loss (Lin et al. 2017, equation 5), ε > 0 label smoothing over the C classes
(Szegedy et al. 2016, section 7). Evaluations report the loss without weights, γ and ε, so that runs
that differ in them can be compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from etude.tuning.data.batch import Batch
from etude.tuning.data.encoded import EncodedSample
from etude.tuning.fusion.packed_heads import segment_logits
from etude.tuning.metrics.classification import f1_of_labels, macro_f1
from etude.tuning.metrics.metric import (
    ACCURACY,
    LABEL_MACRO_F1,
    MACRO_F1,
    MAE,
    MICRO_F1,
    PEARSON,
    RMSE,
    SPEARMAN,
    Metric,
)
from etude.tuning.metrics.regression import regression_metrics
from etude.tuning.objectives.base import LossSum, StepValues
from etude.tuning.objectives.cross_entropy import accumulator

HALF = 0.5
"""Threshold of a label's probability until thresholds are chosen."""


class _WholeTexts:
    """What the losses of whole texts share.

    Attributes:
        baselines: scores of simple baselines on the same data, which `measure` reports beside the
            model's; empty where none were computed.
    """

    name = "classification"
    baselines: Mapping[str, Any]

    def __init__(self, baselines: Mapping[str, Any] | None = None) -> None:
        self.baselines = baselines or {}

    def sides(self, sample: EncodedSample) -> Sequence[EncodedSample]:
        """Return the sample."""
        return (sample,)

    def step_values(self, model: Any, batches: Sequence[Batch]) -> StepValues:
        """Return nothing."""
        del model, batches
        return {}


class Classification(_WholeTexts):
    """Cross-entropy of each sample's class.

    Args:
        classes: number of classes.
        weights: weight of each class, or None for 1.
        gamma: γ of the focal loss.
        baselines: scores of simple baselines.
        smoothing: ε of label smoothing; γ is 0 with it.
    """

    unit = "nats per sample"
    metrics: tuple[Metric, ...] = (ACCURACY, MACRO_F1)

    def __init__(
        self,
        classes: int,
        weights: Sequence[float] | None = None,
        gamma: float = 0.0,
        baselines: Mapping[str, Any] | None = None,
        smoothing: float = 0.0,
    ) -> None:
        super().__init__(baselines)
        self.classes = classes
        self.weights = weights
        self.gamma = gamma
        self.smoothing = smoothing
        plain = weights is None and gamma == 0 and smoothing == 0
        self.unweighted: Classification = self if plain else Classification(classes)

    def normalizer(self, samples: Sequence[EncodedSample]) -> float:
        """Return the sum of the samples' class weights; without weights, their number."""
        if self.weights is None:
            return len(samples)
        return sum(self.weights[cast("int", sample.label)] for sample in samples)

    def loss(self, model: Any, batch: Batch, values: StepValues) -> LossSum:
        """Return Σ −w (1 − p)^γ log p(label), with each sample's logits as output."""
        del values
        logits = class_logits(model, batch)
        labels = torch.tensor([cast("int", sample.label) for sample in batch], device=logits.device)
        weights = None if self.weights is None else logits.new_tensor(self.weights)
        losses = F.cross_entropy(
            logits, labels, weights, label_smoothing=self.smoothing, reduction="none"
        )
        if self.gamma:
            plain = F.cross_entropy(logits, labels, reduction="none")
            losses = losses * _faded(-plain, self.gamma)
        right = int((logits.detach().argmax(dim=1) == labels).sum())
        return LossSum(losses.sum(), {"accuracy": (float(right), len(batch))}, _rows(logits))

    def summarize(
        self, samples: Sequence[EncodedSample], outputs: Sequence[Any]
    ) -> dict[str, float]:
        """Return macro-F1 of the most probable classes."""
        labels = [cast("int", sample.label) for sample in samples]
        predicted = [int(np.argmax(logits)) for logits in outputs]
        return {"macro_f1": macro_f1(labels, predicted, self.classes)}


class MultiLabel(_WholeTexts):
    """Binary cross-entropy of each label of each sample.

    Args:
        labels: number of labels.
        weights: weight of each label where it is present (`pos_weight`), or None for 1.
        gamma: γ of the focal loss.
        baselines: scores of simple baselines.
    """

    unit = "nats per label"
    metrics: tuple[Metric, ...] = (MICRO_F1, LABEL_MACRO_F1)

    def __init__(
        self,
        labels: int,
        weights: Sequence[float] | None = None,
        gamma: float = 0.0,
        baselines: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(baselines)
        self.labels = labels
        self.weights = weights
        self.gamma = gamma
        plain = weights is None and gamma == 0
        self.unweighted: MultiLabel = self if plain else MultiLabel(labels)

    def normalizer(self, samples: Sequence[EncodedSample]) -> float:
        """Return samples × labels."""
        return len(samples) * self.labels

    def loss(self, model: Any, batch: Batch, values: StepValues) -> LossSum:
        """Return Σ of the binary cross-entropies, with each sample's logits as output."""
        del values
        logits = class_logits(model, batch)
        truth = torch.from_numpy(label_matrix(batch.samples, self.labels)).to(logits)  # pyright: ignore[reportUnknownMemberType]
        positive, negative = F.logsigmoid(logits), F.logsigmoid(-logits)
        if self.gamma:
            positive, negative = (part * _faded(part, self.gamma) for part in (positive, negative))
        if self.weights is not None:
            positive = positive * logits.new_tensor(self.weights)
        losses = -(truth * positive + (1 - truth) * negative)
        return LossSum(losses.sum(), outputs=_rows(logits))

    def summarize(
        self, samples: Sequence[EncodedSample], outputs: Sequence[Any]
    ) -> dict[str, float]:
        """Return micro- and macro-F1 of the labels with a probability above a half."""
        if not outputs:
            return {}
        truth = label_matrix(samples, self.labels) > 0
        micro, macro = f1_of_labels(truth, np.stack(outputs) > 0)
        return {"micro_f1": micro, "macro_f1": macro}


class Regression(_WholeTexts):
    """Squared error of each sample's number, in standard deviations of the training labels.

    Args:
        mean: of the training labels.
        deviation: their standard deviation.
        baselines: scores of simple baselines.
    """

    unit = "squared deviations"
    metrics: tuple[Metric, ...] = (RMSE, MAE, PEARSON, SPEARMAN)

    def __init__(
        self, mean: float, deviation: float, baselines: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(baselines)
        self.mean = mean
        self.deviation = deviation

    def normalizer(self, samples: Sequence[EncodedSample]) -> float:
        """Return the number of samples."""
        return len(samples)

    def loss(self, model: Any, batch: Batch, values: StepValues) -> LossSum:
        """Return Σ of the squared errors, with each predicted number as output."""
        del values
        scores = class_logits(model, batch)[:, 0]
        labels = [
            (cast("float", sample.label) - self.mean) / self.deviation for sample in batch.samples
        ]
        errors = scores - scores.new_tensor(labels)
        numbers = scores.detach().double().cpu() * self.deviation + self.mean
        return LossSum(errors.square().sum(), outputs=[float(one) for one in numbers])

    def summarize(
        self, samples: Sequence[EncodedSample], outputs: Sequence[Any]
    ) -> dict[str, float]:
        """Return RMSE, MAE and the correlations, in the unit of the labels."""
        labels = [cast("float", sample.label) for sample in samples]
        return regression_metrics(labels, outputs) if outputs else {}


def label_matrix(samples: Sequence[EncodedSample], labels: int) -> NDArray[np.float32]:
    """Return (samples, labels), 1 where a sample has a label and 0 elsewhere."""
    matrix = np.zeros((len(samples), labels), dtype=np.float32)
    for row, sample in enumerate(samples):
        matrix[row, list(cast("tuple[int, ...]", sample.label))] = 1
    return matrix


def balanced_class_weights(samples: Sequence[EncodedSample], classes: int) -> list[float]:
    """Return n / (classes · n_c) for each class, as scikit-learn's `balanced`.

    A class without samples, which no loss will meet, has weight 0.
    """
    counted = Counter(cast("int", sample.label) for sample in samples)
    return [
        len(samples) / (classes * counted[index]) if counted[index] else 0.0
        for index in range(classes)
    ]


def balanced_label_weights(samples: Sequence[EncodedSample], labels: int) -> list[float]:
    """Return samples without a label / samples with it, for each: `pos_weight` of PyTorch."""
    present = label_matrix(samples, labels).sum(axis=0)
    return [float((len(samples) - count) / count) if count else 1.0 for count in present]


def class_logits(model: Any, batch: Batch) -> torch.Tensor:
    """Return the logits of each sample's classes, (samples, classes), float32 at least.

    Args:
        model: a transformers model for the classification of sequences or images.
            It is within `row_layout` of the batch's layout.
        batch: packed or padded; its labels are not used.
    """
    inputs = batch.inputs(model.device)
    if batch.layout.packed:
        logits = segment_logits(model, inputs, len(batch))
    else:
        inputs.pop("targets", None)  # images have none
        if "pixel_values" in inputs:
            inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
        logits = cast("torch.Tensor", model(**inputs).logits)
    return logits.to(accumulator(logits.dtype))


def _faded(log_p: torch.Tensor, gamma: float) -> torch.Tensor:
    """Return (1 − p)^γ, exact where p is close to 1, with gradient 0 where it is 1."""
    return (-torch.expm1(log_p)).clamp(min=torch.finfo(log_p.dtype).tiny) ** gamma


def _rows(logits: torch.Tensor) -> list[NDArray[np.float32]]:
    return list(logits.detach().float().cpu().numpy())
