"""Trainer: a run's plan, schedule, checkpoints, evaluation and early stopping.

`step.OptimizerSteps` takes the steps. All randomness is a function of (seed, step), so a run
resumed at any step produces the same numbers, bit for bit, on the same machine.
"""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from etude.core.errors import DivergedError, RunError
from etude.core.machine import peak_rss, rss
from etude.core.units import rate
from etude.tuning.callbacks import Callback, CallbackList, EvaluationRecord, StepRecord
from etude.tuning.config.recipe import Recipe
from etude.tuning.data.batch import Layout
from etude.tuning.data.encoded import EncodedSample
from etude.tuning.fusion.patch import Fusion
from etude.tuning.objectives.base import Objective
from etude.tuning.optim.averaging import WeightAverage
from etude.tuning.optim.optimizers import release_state, restore_optimizer
from etude.tuning.optim.schedules import learning_rate, warmup_steps
from etude.tuning.placement import CPU, Placement
from etude.tuning.runs.folder import RunFolder
from etude.tuning.training.checkpoint import Checkpoint, Counters, last_checkpoint, save_checkpoint
from etude.tuning.training.evaluate import best_metric, evaluate
from etude.tuning.training.interrupt import StopAnswer, StopRequest, stop_request
from etude.tuning.training.rungs import Rungs
from etude.tuning.training.step import Abandoned, NotFiniteError, OptimizerSteps, planned_steps

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
        self.average = (
            WeightAverage(parameters, self.spec.ema_decay)
            if self.spec.ema_decay is not None
            else None
        )
        own = [self.average] if self.average is not None else []
        # The average after what changes weights between steps.
        self.callbacks = CallbackList([*callbacks, *own])
        self.layout = layout
        self.placement = placement or Placement(CPU, model.dtype)
        self.fingerprint = data.fingerprint()
        self.objective = objective
        self.best_metric = best_metric(recipe, objective)
        self.steps = OptimizerSteps(
            model,
            parameters,
            data.train,
            recipe,
            objective,
            layout=layout,
            placement=self.placement,
            callbacks=self.callbacks,
            paged_folder=folder.path,
        )
        self.optimizer = self.steps.optimizer
        total = planned_steps(self.spec, len(data.train))
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
            self.steps.training() as fusion,
        ):
            self._fusion = fusion
            # Killed between the checkpoint of a pause and the answer to whoever asked for it.
            if counters.step and self._pauses():
                return self._paused()
            while counters.step < counters.total_steps:
                try:
                    record = self._step(stop)
                except Abandoned:
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
        counters = self.counters
        lr = learning_rate(self.spec, counters.step, counters.total_steps, counters.plateau.scale)
        try:
            done = self.steps.take(counters.step, lr, stop)
        except NotFiniteError as fault:
            raise self._diverged(fault.what, fault.samples) from None
        self._recent = [*self._recent[-7:], done.seconds]
        counters.step += 1
        counters.tokens += done.tokens
        counters.trained_tokens += done.trained_tokens
        counters.seconds += done.seconds
        return StepRecord(
            step=counters.step,
            total_steps=counters.total_steps,
            epoch=round(counters.step / self.steps.per_epoch, 4),
            tokens=counters.tokens,
            trained_tokens=counters.trained_tokens,
            loss=done.loss,
            lr=lr,
            grad_norm=done.grad_norm,
            tokens_per_s=round(done.tokens / done.seconds, 1),
            rss=rss(),
            seconds=round(counters.seconds, 3),
            metrics=done.metrics,
            peak_gpu_memory=self.placement.peak_memory(),
        )

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
            short = (
                f"; train.warmup_steps {warmup} is longer, so the peak is not reached"
                if (warmup := warmup_steps(self.spec, possible)) > possible
                else ""
            )
            self.callbacks.on_message(
                f"planning {possible} of {counters.total_steps} steps to end within "
                f"{limit:g} minutes (train.max_minutes){short}"
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
        self._lower_at_plateau(value)
        if counters.best_value is None or self.best_metric.better(value, counters.best_value):
            counters.best_value = value
            counters.best_step, counters.bad_evaluations = counters.step, 0
            self._write(self.folder.checkpoints / "best", keep=1)
        else:
            counters.bad_evaluations += 1
        return self.spec.patience is not None and counters.bad_evaluations >= self.spec.patience

    def _evaluate(self) -> EvaluationRecord:
        """Evaluate the held-out samples, and record the result."""
        average = self.average.applied() if self.average is not None else nullcontext()
        with self.placement.autocast_context(), average:
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

    def _lower_at_plateau(self, value: float) -> None:
        """Lower the learning rate if evaluations no longer improve; those in warm-up do not count.

        Args:
            value: the evaluation's, by `eval.best_metric`.
        """
        spec, counters = self.spec, self.counters
        if spec.lr_scheduler != "reduce_lr_on_plateau":
            return
        if counters.step < warmup_steps(spec, counters.total_steps):
            return
        better = self.best_metric.higher_is_better
        if counters.plateau.update(spec, value, higher_is_better=better):
            self.callbacks.on_message(
                f"step {counters.step}: {self.best_metric.title} no longer improves; the learning "
                f"rate is now {rate(spec.lr * counters.plateau.scale)}"
            )

    def _finish(self, reason: str) -> str:
        """Restore the weights of the best evaluation, if it is not the last, and their average."""
        counters = self.counters
        if counters.best_step not in (0, counters.step):
            best, _ = last_checkpoint(self.folder.checkpoints / "best")
            if best is not None:
                self.set_weights(best.weights)
                reason += (
                    f"; restored the weights of step {counters.best_step}, the best evaluation"
                )
        if self.average is not None:
            self.average.apply()
            reason += f"; the weights are their average (train.ema_decay {self.average.decay:g})"
        return reason

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
