"""One optimiser step over packed micro-batches, without a run's folder, plan or schedule.

A step takes the samples that its number draws, packs them into micro-batches of at most
`micro_tokens` tokens, accumulates the gradient of Σ loss / normaliser over them (the number of
trained tokens in the whole step, or the objective's own normaliser), clips it and updates the
weights. All randomness is a function of (seed, step number). The trainer and the learning-rate
range test (`lr_range.py`) take steps by it.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from etude.core.errors import RunError
from etude.tuning.adapters.multi_adapter import adapters_named
from etude.tuning.callbacks import Callback
from etude.tuning.config.recipe import NO_NEW_HEAD, Recipe
from etude.tuning.config.sections.train import TrainSpec
from etude.tuning.data.batch import Batch, Layout
from etude.tuning.data.encoded import EncodedSample
from etude.tuning.data.packing import Step, balanced_order, plan_steps
from etude.tuning.fusion.layout import row_layout
from etude.tuning.fusion.patch import Fusion
from etude.tuning.models.foreign_code import foreign_code
from etude.tuning.models.heads import head_modules
from etude.tuning.objectives.base import (
    LossSum,
    MeanMetrics,
    Objective,
    StepValues,
    side_tokens,
)
from etude.tuning.optim.delta_decay import DeltaDecay
from etude.tuning.optim.optimizers import make_optimizer, set_learning_rate
from etude.tuning.placement import Placement
from etude.tuning.training.first_step import FirstStep
from etude.tuning.training.gradient_noise import MicroGradients
from etude.tuning.training.interrupt import StopRequest
from etude.tuning.training.neftune import noisy_embeddings


class Abandoned(Exception):  # noqa: N818 - not an error: a step that is not completed
    """A stop was requested in mid-step; the step's gradients are discarded."""


class NotFiniteError(Exception):
    """A loss or gradient is not finite; the step did not change the weights.

    Args:
        what: what became of which value, for the user.
        samples: the samples that it was computed from.
    """

    def __init__(self, what: str, samples: Sequence[EncodedSample]) -> None:
        super().__init__(what)
        self.what, self.samples = what, samples


@dataclass(frozen=True)
class StepOutcome:
    """What a step computed."""

    loss: float
    """Mean loss, in the objective's unit, before the update."""
    grad_norm: float
    """L2 norm of the gradient of all trained weights, before clipping."""
    tokens: int
    """Tokens processed."""
    trained_tokens: int
    """Targets of the loss among them."""
    seconds: float
    metrics: Mapping[str, float]
    """Of the objective."""


def steps_per_epoch(spec: TrainSpec, samples: int) -> int:
    """Return the optimiser steps of one pass over `samples` samples."""
    return math.ceil(samples / spec.batch_samples)


def planned_steps(spec: TrainSpec, samples: int) -> int:
    """Return the optimiser steps of a run over `samples` samples, before a time limit."""
    total = math.ceil(spec.epochs * steps_per_epoch(spec, samples))
    return total if spec.max_steps is None else min(total, spec.max_steps)


class OptimizerSteps:
    """Takes optimiser steps of `parameters` of `model` by `recipe`; owns the optimiser.

    Args:
        model: a transformers model; `parameters` require gradients.
        parameters: the trained weights by name, float32.
        samples: training samples.
        recipe: the run's recipe.
        objective: the training objective.
        layout: packed or padded rows.
        placement: device and dtypes of the model.
        callbacks: called with the gradients, after the update, and with messages.
        paged_folder: directory of paged optimiser state on a CPU. None: the system's temporary one.
    """

    def __init__(
        self,
        model: Any,
        parameters: Mapping[str, torch.nn.Parameter],
        samples: Sequence[EncodedSample],
        recipe: Recipe,
        objective: Objective,
        *,
        layout: Layout,
        placement: Placement,
        callbacks: Callback,
        paged_folder: Path | None = None,
    ) -> None:
        self.model = model
        self.parameters = dict(parameters)
        self.samples = samples
        self.spec = recipe.train
        self.objective = objective
        self.layout = layout
        self.placement = placement
        self.callbacks = callbacks
        self.per_epoch = steps_per_epoch(self.spec, len(samples))
        self.lengths = [side_tokens(objective, sample) for sample in samples]
        new_head = [] if recipe.task in NO_NEW_HEAD else head_modules(model)
        self.optimizer = make_optimizer(self.spec, self.parameters, paged_folder, heads=new_head)
        self.delta_decay = (
            DeltaDecay(adapters_named(model), self.optimizer, self.spec.delta_decay)
            if self.spec.delta_decay > 0
            else None
        )
        self._epoch: int | None = None
        self._epoch_steps: list[Step] = []

    def take(self, number: int, lr: float, stop: StopRequest | None = None) -> StepOutcome:
        """Take optimiser step `number` (from 0) at learning rate `lr`, within `training`.

        Raises:
            Abandoned: `stop` was requested.
            NotFiniteError: the loss or the gradient is not finite.
            RunError: the gradient of every trained weight is zero, or the first step moves none.
        """
        epoch, index = divmod(number, self.per_epoch)
        step = self._steps_of(epoch)[index]
        began = time.perf_counter()
        torch.manual_seed(_mix(self.spec.seed, number))  # pyright: ignore[reportUnknownMemberType]
        batches = [Batch([self.samples[i] for i in micro], self.layout) for micro in step]
        samples = [sample for batch in batches for sample in batch]
        sides = [side for sample in samples for side in self.objective.sides(sample)]
        loss, means = 0.0, MeanMetrics()
        self.optimizer.zero_grad(set_to_none=True)
        with self.placement.autocast_context(), foreign_code(self.model):
            values = self.objective.step_values(self.model, batches)
        normalizer = self.objective.normalizer(samples)
        micro = MicroGradients([*self.parameters.values()]) if self.spec.gradient_noise else None
        for batch in batches:
            if stop:
                raise Abandoned
            part = self._accumulate(batch, normalizer, values)
            loss += float(part.total)
            means.add(part.sums)
            if micro is not None:
                micro.add(len(batch), self.objective.normalizer(batch.samples) / normalizer)
        noise = micro.estimates() if micro is not None else {}
        self.callbacks.on_gradients()
        norm = self._clip(number, samples)
        set_learning_rate(self.optimizer, lr)
        first = FirstStep.watch(self.parameters) if number == 0 else None
        if self.delta_decay is not None:
            self.delta_decay.step()
        self.optimizer.step()  # pyright: ignore[reportUnknownMemberType]
        if first is not None and (note := first.note(lr)):
            self.callbacks.on_message(note)
        self.callbacks.on_optimizer_step(number + 1)
        return StepOutcome(
            loss=loss,
            grad_norm=norm,
            tokens=sum(len(side) for side in sides),
            trained_tokens=sum(side.trained_tokens for side in sides),
            seconds=time.perf_counter() - began,
            metrics={**means.values(), **noise},
        )

    def _accumulate(self, batch: Batch, normalizer: float, values: StepValues) -> LossSum:
        """Accumulate the gradient of one micro-batch's Σ loss / `normalizer`; return its loss."""
        with self.placement.autocast_context(), foreign_code(self.model):
            part = self.objective.loss(self.model, batch, values)
            loss = part.total / normalizer
        value = float(loss.detach())
        if not math.isfinite(value):
            raise NotFiniteError(f"the loss became {value}", batch.samples)
        loss.backward()  # pyright: ignore[reportUnknownMemberType]
        return LossSum(loss.detach(), part.sums)

    def _clip(self, number: int, samples: Sequence[EncodedSample]) -> float:
        """Clip the gradient in place and return its norm before clipping."""
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(gradients))
        if not math.isfinite(norm):
            raise NotFiniteError(f"the gradient's norm became {norm}", samples)
        if norm == 0.0:
            raise RunError(
                f"step {number + 1}: the gradient of every trained weight is zero, so "
                "nothing would be learnt; check adapter.target_modules and that answers are not "
                "masked"
            )
        if self.spec.max_grad_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(
                self.parameters.values(), self.spec.max_grad_norm, torch.tensor(norm)
            )
        return norm

    def _steps_of(self, epoch: int) -> list[Step]:
        if self._epoch != epoch:
            self._epoch = epoch
            self._epoch_steps = plan_steps(
                self.lengths,
                self.spec.batch_samples,
                self.spec.micro_tokens,
                self.spec.seed,
                epoch,
                self.layout.micro_batches,
                self._balanced_order(epoch),
            )
        return self._epoch_steps

    def _balanced_order(self, epoch: int) -> list[int] | None:
        if self.spec.sampling != "balanced":
            return None
        labels = [cast("int", sample.label) for sample in self.samples]
        return balanced_order(labels, self.spec.seed, epoch)

    @contextmanager
    def training(self) -> Generator[Fusion | None]:
        """Put the model into training mode, in its layout; yields which of its layers are fused."""
        if self.spec.gradient_checkpointing:
            self.model.activation_checkpointing_enable(
                activation_checkpointing_kwargs={"use_reentrant": False}
            )
        self.model.train()
        try:
            with (
                row_layout(self.model, self.layout) as fusion,
                noisy_embeddings(self.model, self.spec.neftune_alpha),
            ):
                yield fusion
        finally:
            self.model.eval()
            if self.spec.gradient_checkpointing:
                self.model.activation_checkpointing_disable()


def _mix(seed: int, step: int) -> int:
    """Return a seed for one step, such that neighbouring steps do not share random streams."""
    digest = hashlib.sha256(f"{seed}:{step}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
