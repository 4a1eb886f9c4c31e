"""Trainer: optimiser steps over packed micro-batches, checkpoints, evaluation, early stopping.

One optimiser step draws `batch_samples` samples, packs them into micro-batches of at most
`micro_tokens` tokens, accumulates the gradient of Σ loss / normaliser over them (the number of
trained tokens in the whole step, or the objective's own normaliser), clips it and updates the
weights. All randomness is a function of (seed, step), so a run resumed at any step produces the
same numbers, bit for bit, on the same machine.
"""

from __future__ import annotations

import hashlib
import math
import statistics
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import torch

from etude.core.errors import DivergedError, RunError
from etude.core.machine import peak_rss, rss
from etude.tuning.callbacks import Callback, CallbackList, EvaluationRecord, StepRecord
from etude.tuning.config.recipe import NO_NEW_HEAD, Recipe
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
from etude.tuning.optim.optimizers import (
    make_optimizer,
    release_state,
    restore_optimizer,
    set_learning_rate,
)
from etude.tuning.optim.schedules import learning_rate
from etude.tuning.placement import CPU, Placement
from etude.tuning.runs.folder import RunFolder
from etude.tuning.training.checkpoint import Checkpoint, Counters, last_checkpoint, save_checkpoint
from etude.tuning.training.evaluate import best_metric, evaluate
from etude.tuning.training.first_step import FirstStep
from etude.tuning.training.interrupt import StopAnswer, StopRequest, stop_request
from etude.tuning.training.rungs import Rungs

# Steps timed to estimate the speed under a time limit; the first is slower than the rest.
_MEASURED_STEPS = 4


@dataclass(frozen=True)
class TrainingSet:
    """Encoded training and evaluation samples."""

    train: Sequence[EncodedSample]
    eval: Sequence[EncodedSample]

    def fingerprint(self) -> str:
        """Return a hash over all training tokens and their order."""
        digest = hashlib.sha256()
        for sample in self.train:
            for side in sample.sides:
                digest.update(side.input_ids.tobytes())
                digest.update(side.trained.tobytes())
            if sample.desirable is not None:
                # The labels used by 0.1.0, so that the fingerprints of older checkpoints match.
                digest.update(b"wanted" if sample.desirable else b"unwanted")
            if isinstance(sample.label, int):
                digest.update(b"class %d" % sample.label)
            elif sample.label is not None:
                digest.update(f"label {sample.label}".encode())
            if sample.token_types is not None:
                digest.update(sample.token_types.tobytes())
            if sample.words is not None:
                digest.update(sample.words.tags.tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class TrainingResult:
    """Outcome of training."""

    state: Literal["finished", "stopped"]
    counters: Counters
    reason: str
    """Why it ended, for the user."""


class _Abandoned(Exception):  # noqa: N818 - not an error: a step that is not completed
    """A stop was requested in mid-step; the step's gradients are discarded."""


class Trainer:
    """Trains `parameters` of `model` by `recipe`; owns the optimiser and the counters.

    Args:
        model: a transformers model; `parameters` require gradients.
        parameters: the trained weights by name, float32.
        data: training and evaluation samples.
        recipe: the run's recipe; `train` and `eval` are used.
        folder: the run's folder, for metrics and checkpoints.
        objective: the training objective.
        layout: packed or padded rows.
        placement: device and dtypes of the model; None: the CPU, in the model's own dtype.
        callbacks: called at each stage, in this order.
        answer: is kept up to date with what a stop would do.
        began: when this process began the run, by `time.perf_counter`; None: now.
        rungs: where the run is evaluated and pauses, to be compared with others.

    Raises:
        RecipeError: `eval.best_metric` names no metric of the objective.
    """

    def __init__(
        self,
        model: Any,
        parameters: Mapping[str, torch.nn.Parameter],
        data: TrainingSet,
        recipe: Recipe,
        folder: RunFolder,
        objective: Objective,
        *,
        layout: Layout,
        placement: Placement | None = None,
        callbacks: Sequence[Callback] = (),
        answer: StopAnswer | None = None,
        began: float | None = None,
        rungs: Rungs | None = None,
    ) -> None:
        self.model = model
        self.parameters = dict(parameters)
        self.data = data
        self.recipe = recipe
        self.spec = recipe.train
        self.folder = folder
        self.callbacks = CallbackList(callbacks)
        self.layout = layout
        self.placement = placement or Placement(CPU, model.dtype)
        self.fingerprint = data.fingerprint()
        self.objective = objective
        self.best_metric = best_metric(recipe, objective)
        self.lengths = [side_tokens(self.objective, sample) for sample in data.train]
        new_head = [] if recipe.task in NO_NEW_HEAD else head_modules(model)
        self.optimizer = make_optimizer(self.spec, self.parameters, folder.path, heads=new_head)
        self.steps_per_epoch = math.ceil(len(data.train) / self.spec.batch_samples)
        total = math.ceil(self.spec.epochs * self.steps_per_epoch)
        if self.spec.max_steps is not None:
            total = min(total, self.spec.max_steps)
        self.counters = Counters(total_steps=total, planned=self.spec.max_minutes is None)
        self._recent: list[float] = []
        self._fusion: Fusion | None = None
        self._saved_step = -1
        self._answer = answer or StopAnswer()
        self._began = time.perf_counter() if began is None else began
        self._earlier = Counters()
        self._rungs = rungs

    @property
    def total_seconds(self) -> float:
        """Time since the run began: loading, evaluation and earlier processes included."""
        return self._earlier.total_seconds + time.perf_counter() - self._began

    @property
    def peak_rss(self) -> int:
        """Peak resident memory of this process and of those that it resumed, in bytes."""
        return max(self._earlier.peak_rss, peak_rss())

    def resume(self, checkpoint: Checkpoint, *, replan: bool = False) -> None:
        """Restore the state of a checkpoint; metrics recorded after it are discarded.

        Args:
            checkpoint: the state.
            replan: whether the recipe's number of steps replaces the checkpoint's. The schedule is
                then that of the new number, from the checkpoint's step on; early stopping counts
                anew; the order of the data and the optimiser's state go on.

        Raises:
            RunError: the checkpoint belongs to different data or different weights, or had all the
                steps that are planned now.
        """
        if checkpoint.data != self.fingerprint:
            raise RunError(
                "the training data differ from those this run began with, so it cannot be resumed; "
                "start a new run, or restore the original data"
            )
        if checkpoint.weights.keys() != self.tensors().keys():
            raise RunError("the checkpoint's trained weights are not those of this recipe")
        self.set_weights(checkpoint.weights)
        restore_optimizer(self.optimizer, checkpoint.optimizer)
        planned, self.counters = self.counters, checkpoint.counters
        self._earlier = replace(checkpoint.counters)
        if replan:
            if planned.total_steps <= checkpoint.counters.step:
                raise RunError(
                    f"the run has done {checkpoint.counters.step} steps, and the recipe plans "
                    f"{planned.total_steps} now; raise train.epochs or train.max_steps"
                )
            self.counters.total_steps, self.counters.planned = planned.total_steps, planned.planned
            self.counters.bad_evaluations = 0
        self._saved_step = checkpoint.counters.step
        self.folder.truncate_metrics(checkpoint.counters.step)

    def run(self) -> TrainingResult:
        """Train to the end of the plan, an early stop, or a request to stop.

        Raises:
            DivergedError: the loss or the gradient is not finite.
            RunError: all gradients are zero, or a checkpoint cannot be written.
        """
        counters = self.counters
        self.callbacks.on_train_begin(counters.total_steps, counters.step)
        try:
            return self._run()
        finally:
            self.callbacks.on_train_end()

    def release(self) -> None:
        """Release the gradients and the optimiser's state; the trainer can step no more."""
        self.optimizer.zero_grad(set_to_none=True)
        self.optimizer.state.clear()

    def _run(self) -> TrainingResult:
        counters = self.counters
        with (
            stop_request() as stop,
            self._answer.during(self._stopping),
            self._training_mode(),
        ):
            # Killed between the checkpoint of a pause and the answer to whoever asked for it.
            if counters.step and self._pauses():
                return self._paused()
            while counters.step < counters.total_steps:
                try:
                    record = self._step(stop)
                except _Abandoned:
                    self._save()
                    return TrainingResult("stopped", counters, f"stopped at step {counters.step}")
                if self._fusion is not None:
                    # Said of what ran, not of what was to run.
                    self.callbacks.on_message(str(self._fusion))
                    self._fusion = None
                self.folder.append_metrics(record.as_json())
                self.callbacks.on_step_end(record)
                self._plan_by_time()
                last = counters.step == counters.total_steps
                if self._evaluate_if_due(last) and not last:
                    self._save()
                    return TrainingResult(
                        "finished", counters, self._finish("early stopping: no improvement")
                    )
                # Before the checkpoint: a run that pauses with one has its value.
                self._evaluate_at_rung()
                if last or counters.step % self.spec.save_every == 0:
                    self._save()
                if self._pauses():
                    self._save()
                    return self._paused()
                if self._out_of_time() and not last:
                    self._save()
                    return TrainingResult("finished", counters, self._finish("time limit reached"))
        return TrainingResult("finished", counters, self._finish("all steps completed"))

    def _stopping(self) -> str:
        """Return what a stop does now, for the user."""
        step, saved = self.counters.step, max(self._saved_step, 0)
        kept = f"step {saved}" if saved else "nothing"
        return (
            f"the state after step {step} is saved at the next safe point, to be resumed. "
            f"Ctrl-C again ends at once and keeps {kept}"
        )

    def _step(self, stop: StopRequest) -> StepRecord:
        """Do one optimiser step and return its record."""
        counters, spec = self.counters, self.spec
        epoch, index = divmod(counters.step, self.steps_per_epoch)
        step = self._steps_of(epoch)[index]
        began = time.perf_counter()
        torch.manual_seed(_mix(spec.seed, counters.step))  # pyright: ignore[reportUnknownMemberType]
        batches = [Batch([self.data.train[i] for i in micro], self.layout) for micro in step]
        samples = [sample for batch in batches for sample in batch]
        sides = [side for sample in samples for side in self.objective.sides(sample)]
        trained = sum(side.trained_tokens for side in sides)
        tokens = sum(len(side) for side in sides)
        loss, means = 0.0, MeanMetrics()
        self.optimizer.zero_grad(set_to_none=True)
        with self.placement.autocast_context(), foreign_code(self.model):
            values = self.objective.step_values(self.model, batches)
        for batch in batches:
            if stop:
                raise _Abandoned
            part = self._accumulate(batch, self.objective.normalizer(samples), values)
            loss += float(part.total)
            means.add(part.sums)
        self.callbacks.on_gradients()
        norm = self._clip(step)
        lr = learning_rate(spec, counters.step, counters.total_steps)
        set_learning_rate(self.optimizer, lr)
        first = FirstStep.watch(self.parameters) if counters.step == 0 else None
        self.optimizer.step()  # pyright: ignore[reportUnknownMemberType]
        if first is not None and (note := first.note(lr)):
            self.callbacks.on_message(note)
        self.callbacks.on_optimizer_step(counters.step + 1)
        seconds = time.perf_counter() - began
        self._recent = [*self._recent[-7:], seconds]
        counters.step += 1
        counters.tokens += tokens
        counters.trained_tokens += trained
        counters.seconds += seconds
        return StepRecord(
            step=counters.step,
            total_steps=counters.total_steps,
            epoch=round(counters.step / self.steps_per_epoch, 4),
            tokens=counters.tokens,
            trained_tokens=counters.trained_tokens,
            loss=loss,
            lr=lr,
            grad_norm=norm,
            tokens_per_s=round(tokens / seconds, 1),
            rss=rss(),
            seconds=round(counters.seconds, 3),
            metrics=means.values(),
            peak_gpu_memory=self.placement.peak_memory(),
        )

    def _accumulate(self, batch: Batch, normalizer: float, values: StepValues) -> LossSum:
        """Accumulate the gradient of one micro-batch's Σ loss / `normalizer`; return its loss."""
        with self.placement.autocast_context(), foreign_code(self.model):
            part = self.objective.loss(self.model, batch, values)
            loss = part.total / normalizer
        value = float(loss.detach())
        if not math.isfinite(value):
            raise self._diverged(f"the loss became {value}", batch.samples)
        loss.backward()  # pyright: ignore[reportUnknownMemberType]
        return LossSum(loss.detach(), part.sums)

    def _clip(self, step: Step) -> float:
        """Clip the gradient in place and return its norm before clipping."""
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(gradients))
        samples = [self.data.train[i] for micro in step for i in micro]
        if not math.isfinite(norm):
            raise self._diverged(f"the gradient's norm became {norm}", samples)
        if norm == 0.0:
            raise RunError(
                f"step {self.counters.step + 1}: the gradient of every trained weight is zero, so "
                "nothing would be learnt; check adapter.target_modules and that answers are not "
                "masked"
            )
        if self.spec.max_grad_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(
                self.parameters.values(), self.spec.max_grad_norm, torch.tensor(norm)
            )
        return norm

    def _diverged(self, what: str, samples: Sequence[EncodedSample]) -> DivergedError:
        """Save the last good state and return an error that names the batch."""
        self._save()
        origins = ", ".join(sample.origin for sample in samples[:8])
        more = f" and {len(samples) - 8} more" if len(samples) > 8 else ""
        return DivergedError(
            f"step {self.counters.step + 1}: {what}; the state after step {self.counters.step} "
            f"is saved. Batch: {origins}{more}. Lower train.lr, or inspect these samples"
        )

    def _plan_by_time(self) -> None:
        """Shorten the plan, once, so that the schedule ends within the time limit."""
        counters, limit = self.counters, self.spec.max_minutes
        if counters.planned or limit is None or counters.step < _MEASURED_STEPS:
            return
        # Reserve a tenth: the duration of steps varies.
        left = 0.9 * limit * 60 - counters.seconds
        possible = counters.step + max(1, int(left / statistics.median(self._recent)))
        if possible < counters.total_steps:
            self.callbacks.on_message(
                f"planning {possible} of {counters.total_steps} steps to end within "
                f"{limit:g} minutes (train.max_minutes)"
            )
            counters.total_steps = possible
            self.callbacks.on_plan_change(possible)
        counters.planned = True

    def _out_of_time(self) -> bool:
        limit = self.spec.max_minutes
        return limit is not None and self.counters.seconds > limit * 60

    def _evaluate_if_due(self, last: bool) -> bool:
        """Evaluate if an evaluation is due; return whether to stop early."""
        every, counters = self.spec.eval_every, self.counters
        if every is None or not self.data.eval or not (last or counters.step % every == 0):
            return False
        record = self._evaluate()
        value = {self.best_metric.name: record.loss, **record.metrics}[self.best_metric.name]
        if counters.best_value is None or self.best_metric.better(value, counters.best_value):
            counters.best_value = value
            counters.best_step, counters.bad_evaluations = counters.step, 0
            self._write(self.folder.checkpoints / "best", keep=1)
        else:
            counters.bad_evaluations += 1
        return self.spec.patience is not None and counters.bad_evaluations >= self.spec.patience

    def _evaluate(self) -> EvaluationRecord:
        """Evaluate the held-out samples, and record the result."""
        with self.placement.autocast_context():
            evaluation = evaluate(
                self.model,
                self.objective,
                self.data.eval,
                self.spec.micro_tokens,
                layout=self.layout,
            )
        self.model.train()
        record = EvaluationRecord(self.counters.step, evaluation.loss, evaluation.metrics)
        self.folder.append_metrics(record.as_json())
        self.callbacks.on_evaluate(record)
        return record

    def _evaluate_at_rung(self) -> None:
        """Evaluate at a rung, unless it was done at this step; no weights are chosen by it."""
        counters, every = self.counters, self.spec.eval_every
        due = self._pauses() or (
            self._rungs is not None and self._rungs.is_rung(counters.step, counters.total_steps)
        )
        done = every is not None and counters.step % every == 0
        if due and not done and self.data.eval:
            self._evaluate()

    def _pauses(self) -> bool:
        counters = self.counters
        return self._rungs is not None and self._rungs.pauses(counters.step, counters.total_steps)

    def _paused(self) -> TrainingResult:
        counters = self.counters
        reason = f"paused after step {counters.step} of {counters.total_steps}"
        return TrainingResult("stopped", counters, reason)

    def _finish(self, reason: str) -> str:
        """Restore the weights of the best evaluation, if it is not the last."""
        counters = self.counters
        if counters.best_step in (0, counters.step):
            return reason
        best, _ = last_checkpoint(self.folder.checkpoints / "best")
        if best is None:
            return reason
        self.set_weights(best.weights)
        return f"{reason}; restored the weights of step {counters.best_step}, the best evaluation"

    def _checkpoint(self) -> Checkpoint:
        weights = self.tensors()
        self.counters.total_seconds = round(self.total_seconds, 3)
        self.counters.peak_rss = self.peak_rss
        state = self.optimizer.state_dict()
        return Checkpoint(weights, state, self.counters, self.fingerprint)

    def _save(self) -> None:
        if self._saved_step != self.counters.step:
            self._write(self.folder.checkpoints, keep=2)
            self._saved_step = self.counters.step

    def _write(self, folder: Path, *, keep: int) -> None:
        release = partial(release_state, self.optimizer)
        save_checkpoint(folder, self._checkpoint(), keep=keep, written=release)

    def set_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Set the trained weights and callback states to those of `tensors`."""
        with torch.no_grad():
            for name, tensor in self.tensors().items():
                tensor.copy_(weights[name])

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the trained weights and callback states by name, without the optimiser's state."""
        weights = {name: parameter.detach() for name, parameter in self.parameters.items()}
        between = self.callbacks.state()
        return {**weights, **{f"between.{name}": value for name, value in between.items()}}

    def _steps_of(self, epoch: int) -> list[Step]:
        if getattr(self, "_epoch", None) != epoch:
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
        labels = [cast("int", sample.label) for sample in self.data.train]
        return balanced_order(labels, self.spec.seed, epoch)

    @contextmanager
    def _training_mode(self) -> Generator[None]:
        if self.spec.gradient_checkpointing:
            self.model.activation_checkpointing_enable(
                activation_checkpointing_kwargs={"use_reentrant": False}
            )
        self.model.train()
        try:
            with row_layout(self.model, self.layout) as fusion:
                self._fusion = fusion
                yield
        finally:
            self.model.eval()
            if self.spec.gradient_checkpointing:
                self.model.activation_checkpointing_disable()


def _mix(seed: int, step: int) -> int:
    """Return a seed for one step, such that neighbouring steps do not share random streams."""
    digest = hashlib.sha256(f"{seed}:{step}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
