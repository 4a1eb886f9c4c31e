"""Knowledge distillation: a student learns a teacher's distributions, mixed with the labels.

Of a language model they are those of every trained token, of a classifier those of the classes, of
a tagger those of each word's tags. The sum is over positions and is divided by the trained tokens,
samples or words of the whole optimiser step, so that it does not depend on how the step is split
into micro-batches (`divergence.py` has the formulas). Evaluations report the plain loss on the
labels, by which runs can be compared, and the forward KL from the teacher at T = 1, if it is at
hand.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from etude.tuning.adapters.multi_adapter import adapter_disabled
from etude.tuning.data.batch import Batch
from etude.tuning.data.encoded import EncodedSample
from etude.tuning.data.score_store import ScoreStore
from etude.tuning.data.tagging.decoding import TagDecoder
from etude.tuning.fusion.layout import row_layout
from etude.tuning.metrics.metric import WORD_ACCURACY, Metric
from etude.tuning.objectives.base import SFT, LossSum, StepValues
from etude.tuning.objectives.classification import Classification, class_logits
from etude.tuning.objectives.cross_entropy import accumulator, logits_at, plain_head
from etude.tuning.objectives.divergence import (
    Known,
    KnownLogits,
    KnownStates,
    Mixture,
    mixture_of_logits,
    mixture_sum,
)
from etude.tuning.objectives.hidden_states import HiddenMatch
from etude.tuning.objectives.reference import still
from etude.tuning.objectives.stored_divergence import KnownScores
from etude.tuning.objectives.token_classification import (
    TokenClassification,
    by_sample,
    word_log_probs,
    word_tags,
)

TEACHER_KL = Metric(
    "teacher_kl", "KL from the teacher", "loss", higher_is_better=False, note="nats, at T = 1"
)

AS_MEASURED = Mixture(label_weight=1.0)
"""Cross-entropy of the labels, with the forward KL beside it."""

IN_TRAINING = "divergence"
"""Name, in the record of a step, of the recipe's divergence at the recipe's temperature."""


Read = Callable[[Any, Batch], KnownStates | KnownLogits]
"""What a model that is at hand says about a batch, by a task's way of asking."""


class Teacher(Protocol):
    """Whose distributions are learnt."""

    def known(self, student: Any, batch: Batch, read: Read) -> Known:
        """Return the distributions at all trained positions of a batch, in order.

        Args:
            student: the model in training.
            batch: what it is trained on.
            read: asks a model that is at hand, which is in evaluation mode and without gradients.
        """
        ...


class OwnBase:
    """The student itself with its adapter disabled: no second model."""

    def known(self, student: Any, batch: Batch, read: Read) -> KnownStates | KnownLogits:
        """Ask the student's base."""
        with still(student), adapter_disabled(student):
            return read(student, batch)


class OtherModel:
    """A second model in memory.

    Args:
        model: frozen.
    """

    def __init__(self, model: Any) -> None:
        self.model = model

    def known(self, student: Any, batch: Batch, read: Read) -> KnownStates | KnownLogits:
        """Ask the model, prepared for the batch's layout."""
        del student
        with still(self.model), row_layout(self.model, batch.layout):
            return read(self.model, batch)


AtHand = OwnBase | OtherModel
"""A teacher that is a model in memory."""


class StoredTeacher:
    """Scores that were stored before, of training samples: no second model.

    Args:
        store: of the temperature that is trained at.
    """

    def __init__(self, store: ScoreStore) -> None:
        self.store = store

    def known(self, student: Any, batch: Batch, read: Read) -> Known:
        """Look them up."""
        del read
        scores = self.store.read(batch.samples).to(student.device)
        return KnownScores(scores, self.store.about.words)


def read_tokens(model: Any, batch: Batch) -> KnownStates | KnownLogits:
    """Return what a language model says about the trained tokens of a batch."""
    inputs = batch.inputs(model.device)
    targets = cast("Tensor", inputs.pop("targets"))
    trained = targets.flatten() != -100
    weight = _whole_matrix(model)
    if weight is not None:
        return KnownStates(_hidden(model, inputs, trained), weight)
    return KnownLogits(_logits(model, inputs, targets, trained))


def read_classes(model: Any, batch: Batch) -> KnownStates | KnownLogits:
    """Return what a classifier says about the samples of a batch."""
    return KnownLogits(class_logits(model, batch))


def read_tags(model: Any, batch: Batch) -> KnownStates | KnownLogits:
    """Return what a tagger says about the words of a batch."""
    return KnownLogits(word_log_probs(model, batch))


def _ask(
    teacher: Teacher, student: Any, batch: Batch, read: Read, states: HiddenMatch | None
) -> Known:
    """Return what a teacher says, and let `states` see its layers meanwhile."""
    if states is None:
        return teacher.known(student, batch, read)

    def reading(model: Any, batch: Batch) -> KnownStates | KnownLogits:
        with states.teacher(model, batch):
            return read(model, batch)

    return teacher.known(student, batch, reading)


@contextmanager
def _watched(states: HiddenMatch | None, student: Any) -> Generator[list[Tensor]]:
    """Context manager: yield where the student's states will be; without `states`, nowhere."""
    if states is None:
        yield []
        return
    with states.student(student) as found:
        yield found


def _with_states(
    states: HiddenMatch | None, found: list[Tensor], batch: Batch, part: LossSum, count: int
) -> LossSum:
    """Return the loss with that of the layers' states."""
    if states is None:
        return part
    apart = states.loss(found, batch)
    sums = {**part.sums, "hidden_states": (float(apart.detach()), count)}
    return LossSum(part.total + apart.to(part.total.dtype), sums, part.outputs)


def _recorded(mixture: Mixture) -> str:
    """Return the name that a loss of this mixture records its divergence by."""
    return TEACHER_KL.name if mixture == AS_MEASURED else IN_TRAINING


def _is_at_hand(teacher: Teacher) -> bool:
    """Return whether evaluations can ask it: stored scores are of training samples only."""
    return not isinstance(teacher, StoredTeacher)


class DistilledLanguageModel(SFT):
    """Distillation of every trained token.

    Args:
        teacher: whose distributions are learnt.
        mixture: of divergence and label.
        states: matching of hidden states, or None.
    """

    name = "distill"

    def __init__(
        self, teacher: Teacher, mixture: Mixture, states: HiddenMatch | None = None
    ) -> None:
        self.teacher = teacher
        self.mixture = mixture
        self.states = states
        self.unweighted: SFT = self
        self.metrics = (TEACHER_KL,) if _is_at_hand(teacher) else ()
        if not _is_at_hand(teacher):
            self.unweighted = SFT()
        elif mixture != AS_MEASURED or states is not None:
            self.unweighted = DistilledLanguageModel(teacher, AS_MEASURED)

    def loss(self, model: Any, batch: Batch, values: StepValues) -> LossSum:
        """Return Σ loss over the trained tokens, with their divergence from the teacher."""
        del values
        known = _ask(self.teacher, model, batch, read_tokens, self.states)
        inputs = batch.inputs(model.device)
        targets = cast("Tensor", inputs.pop("targets"))
        trained = targets.flatten() != -100
        wanted = targets.flatten()[trained]
        weight = _whole_matrix(model)
        with _watched(self.states, model) as found:
            if weight is not None:
                hidden = _hidden(model, inputs, trained)
                total, apart = mixture_sum(hidden, weight, known, wanted, self.mixture)
            else:
                # Models that scale or cap their logits, or have rows of their own for added
                # tokens, multiply themselves: of the trained tokens, whole.
                own = _logits(model, inputs, targets, trained)
                losses, each = mixture_of_logits(own, known, wanted, self.mixture)
                total, apart = losses.sum(), each.sum()
        part = LossSum(total, {_recorded(self.mixture): (float(apart), len(wanted))})
        return _with_states(self.states, found, batch, part, len(wanted))


class DistilledClassifier(Classification):
    """Distillation of each sample's classes.

    Args:
        classes: number of classes.
        teacher: whose distributions are learnt; its classes are in the same order.
        mixture: of divergence and label.
        baselines: scores of simple baselines.
        states: matching of hidden states, or None.
    """

    name = "distill"

    def __init__(
        self,
        classes: int,
        teacher: Teacher,
        mixture: Mixture,
        baselines: Mapping[str, Any] | None = None,
        states: HiddenMatch | None = None,
    ) -> None:
        super().__init__(classes, baselines=baselines)
        self.teacher = teacher
        self.mixture = mixture
        self.states = states
        # Evaluations report the loss of the labels, as those of runs without a teacher.
        self.unweighted: Classification = self
        if not _is_at_hand(teacher):
            self.unweighted = Classification(classes, baselines=baselines)
            return
        self.metrics = (*Classification.metrics, TEACHER_KL)
        if mixture != AS_MEASURED or states is not None:
            self.unweighted = DistilledClassifier(classes, teacher, AS_MEASURED)

    def normalizer(self, samples: Sequence[EncodedSample]) -> float:
        """Return the number of samples."""
        return len(samples)

    def loss(self, model: Any, batch: Batch, values: StepValues) -> LossSum:
        """Return Σ loss over the samples, with their divergence and each sample's logits."""
        del values
        known = _ask(self.teacher, model, batch, read_classes, self.states)
        with _watched(self.states, model) as states:
            logits = class_logits(model, batch)
        labels = torch.tensor([cast("int", sample.label) for sample in batch], device=logits.device)
        losses, found = mixture_of_logits(logits, known, labels, self.mixture)
        right = int((logits.detach().argmax(dim=1) == labels).sum())
        sums = {
            "accuracy": (float(right), len(batch)),
            _recorded(self.mixture): (float(found.sum()), len(batch)),
        }
        part = LossSum(losses.sum(), sums, list(logits.detach().float().cpu().numpy()))
        return _with_states(self.states, states, batch, part, len(batch))


class DistilledTagger(TokenClassification):
    """Distillation of the tags of each word, divided by the words of the whole step.

    Args:
        decoder: as for `TokenClassification`.
        teacher: whose distributions are learnt; its tags are in the same order.
        mixture: of divergence and label.
        states: matching of hidden states, or None.
    """

    name = "distill"

    def __init__(
        self,
        decoder: TagDecoder,
        teacher: Teacher,
        mixture: Mixture,
        states: HiddenMatch | None = None,
    ) -> None:
        super().__init__(decoder)
        self.teacher = teacher
        self.mixture = mixture
        self.states = states
        self.unweighted: TokenClassification = self
        if not _is_at_hand(teacher):
            self.unweighted = TokenClassification(decoder)
            return
        self.metrics = (*TokenClassification.metrics, TEACHER_KL)
        if mixture != AS_MEASURED or states is not None:
            self.unweighted = DistilledTagger(decoder, teacher, AS_MEASURED)

    def loss(self, model: Any, batch: Batch, values: StepValues) -> LossSum:
        """Return Σ loss over the words, with their divergence; log-probabilities are outputs."""
        del values
        known = _ask(self.teacher, model, batch, read_tags, self.states)
        with _watched(self.states, model) as states:
            log_probs = word_log_probs(model, batch)
        tags = word_tags(batch, log_probs.device)
        # As logits they are as good as those that they were made of.
        losses, found = mixture_of_logits(log_probs, known, tags, self.mixture)
        detached = log_probs.detach()
        sums = {
            WORD_ACCURACY.name: (float((detached.argmax(dim=1) == tags).sum()), len(tags)),
            _recorded(self.mixture): (float(found.sum()), len(tags)),
        }
        part = LossSum(losses.sum(), sums, by_sample(detached, batch))
        return _with_states(self.states, states, batch, part, len(tags))


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
