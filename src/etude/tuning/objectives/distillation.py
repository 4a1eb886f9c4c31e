"""Knowledge distillation: a student learns a teacher's distributions, mixed with the labels.

Of a language model they are those of every trained token, of a classifier those of the classes. The
sum is over positions and is divided by the trained tokens, or samples, of the whole optimiser step,
so that it does not depend on how the step is split into micro-batches (`divergence.py` has the
formulas). Evaluations report the plain loss on the labels, by which runs can be compared, and the
forward KL from the teacher at T = 1.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from etude.tuning.adapters.multi_adapter import adapter_disabled
from etude.tuning.data.batch import Batch, Layout
from etude.tuning.data.encoded import EncodedSample
from etude.tuning.fusion.layout import row_layout
from etude.tuning.metrics.metric import Metric
from etude.tuning.objectives.base import SFT, LossSum, StepValues
from etude.tuning.objectives.classification import Classification, class_logits
from etude.tuning.objectives.cross_entropy import accumulator, logits_at, plain_head
from etude.tuning.objectives.divergence import Mixture, mixture_of_logits, mixture_sum
from etude.tuning.objectives.reference import still

TEACHER_KL = Metric(
    "teacher_kl", "KL from the teacher", "loss", higher_is_better=False, note="nats, at T = 1"
)

AS_MEASURED = Mixture(label_weight=1.0)
"""Cross-entropy of the labels, with the forward KL beside it."""

IN_TRAINING = "divergence"
"""Name, in the record of a step, of the recipe's divergence at the recipe's temperature."""


def _recorded(mixture: Mixture) -> str:
    """Return the name that a loss of this mixture records its divergence by."""
    return TEACHER_KL.name if mixture == AS_MEASURED else IN_TRAINING


class Teacher(Protocol):
    """A model whose distributions are learnt, in evaluation mode and without gradients."""

    def active(self, student: Any, layout: Layout) -> Any:
        """Return a context manager that yields the model to call on the student's batch."""
        ...


class OwnBase:
    """The student itself with its adapter disabled: no second model."""

    @contextmanager
    def active(self, student: Any, layout: Layout) -> Generator[Any]:
        """Yield the student's base."""
        del layout
        with still(student), adapter_disabled(student):
            yield student


class OtherModel:
    """A second model in memory.

    Args:
        model: frozen.
    """

    def __init__(self, model: Any) -> None:
        self.model = model

    @contextmanager
    def active(self, student: Any, layout: Layout) -> Generator[Any]:
        """Yield the model, prepared for the layout."""
        del student
        with still(self.model), row_layout(self.model, layout):
            yield self.model


class DistilledLanguageModel(SFT):
    """Distillation of every trained token.

    Args:
        teacher: whose distributions are learnt.
        mixture: of divergence and label.
    """

    name = "distill"
    metrics: tuple[Metric, ...] = (TEACHER_KL,)

    def __init__(self, teacher: Teacher, mixture: Mixture) -> None:
        self.teacher = teacher
        self.mixture = mixture
        self.unweighted: DistilledLanguageModel = (
            self if mixture == AS_MEASURED else DistilledLanguageModel(teacher, AS_MEASURED)
        )

    def loss(self, model: Any, batch: Batch, values: StepValues) -> LossSum:
        """Return Σ loss over the trained tokens, with their divergence from the teacher."""
        del values
        inputs = batch.inputs(model.device)
        targets = cast("Tensor", inputs.pop("targets"))
        trained = targets.flatten() != -100
        wanted = targets.flatten()[trained]
        weight = _whole_matrix(model)
        with self.teacher.active(model, batch.layout) as teacher:
            teacher_weight = _whole_matrix(teacher)
            plain = weight is not None and teacher_weight is not None
            known = (
                _hidden(teacher, inputs, trained)
                if plain
                else _logits(teacher, inputs, targets, trained)
            )
        if weight is not None and teacher_weight is not None:
            total, apart = mixture_sum(
                _hidden(model, inputs, trained), weight, known, teacher_weight, wanted, self.mixture
            )
        else:
            # Models that scale or cap their logits, or have rows of their own for added tokens,
            # multiply themselves: of the trained tokens, whole.
            own = _logits(model, inputs, targets, trained)
            words = min(own.shape[-1], known.shape[-1])
            losses, found = mixture_of_logits(
                own[:, :words], known[:, :words], wanted, self.mixture
            )
            total, apart = losses.sum(), found.sum()
        return LossSum(total, {_recorded(self.mixture): (float(apart), len(wanted))})


class DistilledClassifier(Classification):
    """Distillation of each sample's classes.

    Args:
        classes: number of classes.
        teacher: whose distributions are learnt; its classes are in the same order.
        mixture: of divergence and label.
        baselines: scores of simple baselines.
    """

    name = "distill"

    def __init__(
        self,
        classes: int,
        teacher: Teacher,
        mixture: Mixture,
        baselines: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(classes, baselines=baselines)
        self.teacher = teacher
        self.mixture = mixture
        self.metrics = (*Classification.metrics, TEACHER_KL)
        # Evaluations report the loss of the labels, as those of runs without a teacher.
        self.unweighted = (
            self if mixture == AS_MEASURED else DistilledClassifier(classes, teacher, AS_MEASURED)
        )

    def normalizer(self, samples: Sequence[EncodedSample]) -> float:
        """Return the number of samples."""
        return len(samples)

    def loss(self, model: Any, batch: Batch, values: StepValues) -> LossSum:
        """Return Σ loss over the samples, with their divergence and each sample's logits."""
        del values
        with self.teacher.active(model, batch.layout) as teacher:
            known = class_logits(teacher, batch)
        logits = class_logits(model, batch)
        labels = torch.tensor([cast("int", sample.label) for sample in batch], device=logits.device)
        losses, found = mixture_of_logits(logits, known, labels, self.mixture)
        right = int((logits.detach().argmax(dim=1) == labels).sum())
        sums = {
            "accuracy": (float(right), len(batch)),
            _recorded(self.mixture): (float(found.sum()), len(batch)),
        }
        return LossSum(losses.sum(), sums, list(logits.detach().float().cpu().numpy()))


def _whole_matrix(model: Any) -> Tensor | None:
    """Return the output matrix, (V, H), if it is all there is between hidden states and logits."""
    matrix = plain_head(model)
    return None if matrix is None or matrix.rows is not None else matrix.weight


def _hidden(model: Any, inputs: Mapping[str, Any], trained: Tensor) -> Tensor:
    """Return the last hidden states of the trained positions, (N, H)."""
    output = model.base_model(use_cache=False, **inputs)
    return cast("Tensor", output.last_hidden_state).flatten(0, 1)[trained]


def _logits(model: Any, inputs: Mapping[str, Any], targets: Tensor, trained: Tensor) -> Tensor:
    """Return the model's own logits of the trained positions, (N, V)."""
    columns = trained.view_as(targets).any(dim=0).nonzero().flatten()
    logits = logits_at(model, columns, **inputs)
    kept = targets[:, columns].flatten() != -100
    found = logits.flatten(0, 1)[kept]
    return found.to(accumulator(found.dtype))
