"""Training callbacks: hooks that observe or act on a run.

The terminal view is one, AdaLoRA's rank allocator another. The loop calls every callback at each
stage, in the given order; a callback overrides the methods it needs. The tensors in a callback's
`state` are part of every checkpoint, so callbacks that change weights resume exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class StepRecord:
    """One optimiser step, a line of metrics.jsonl."""

    step: int
    """Optimiser step, from 1."""
    total_steps: int
    """Steps planned for the whole run; a time limit may reduce them."""
    epoch: float
    tokens: int
    """Tokens processed since the run began."""
    trained_tokens: int
    """Targets of the loss among them."""
    loss: float
    """Mean loss of the step, in the objective's unit."""
    lr: float
    grad_norm: float
    """L2 norm of the gradient of all trained weights, before clipping."""
    tokens_per_s: float
    rss: int
    """Resident memory of the process, in bytes."""
    seconds: float
    """Training time since the run began, excluding evaluation."""
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    """Metrics of the objective: rewards, margin, accuracy."""
    peak_gpu_memory: int | None = None
    """Peak GPU memory of tensors so far, in bytes; None on a CPU."""

    def as_json(self) -> dict[str, Any]:
        """Return the flat line for metrics.jsonl, without unknown values."""
        fields = {key: value for key, value in vars(self).items() if value is not None}
        metrics = fields.pop("metrics")
        return {**fields, **metrics}


@dataclass(frozen=True)
class EvaluationRecord:
    """One evaluation during training, a line of metrics.jsonl."""

    step: int
    loss: float
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])

    def as_json(self) -> dict[str, Any]:
        """Return the flat line for metrics.jsonl: `eval_loss`, and `eval_` before each metric."""
        named = {f"eval_{name}": value for name, value in self.metrics.items()}
        return {"step": self.step, "eval_loss": self.loss, **named}


class Callback:
    """Base class of callbacks; every method does nothing by default."""

    def state(self) -> Mapping[str, Tensor]:
        """Return the tensors to save in checkpoints; they are restored in place."""
        return {}

    def on_resume(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Training is about to go on after these records of metrics.jsonl."""

    def on_train_begin(self, total_steps: int, step: int) -> None:
        """Training starts, or resumes after `step` steps."""

    def on_plan_change(self, total_steps: int) -> None:
        """The time limit reduced the number of steps to `total_steps`."""

    def on_gradients(self) -> None:
        """The gradients of a step are complete but not yet clipped."""

    def on_optimizer_step(self, step: int) -> None:
        """Optimiser step `step`, from 1, is done; its gradients are still available."""

    def on_step_end(self, record: StepRecord) -> None:
        """A step was recorded."""

    def on_evaluate(self, record: EvaluationRecord) -> None:
        """The held-out samples were evaluated."""

    def on_message(self, text: str) -> None:
        """A message for the user. The answer to Ctrl-C comes from another thread."""

    def on_train_end(self) -> None:
        """Training finished or was stopped."""


class CallbackList(Callback):
    """Composite callback: calls several callbacks in order."""

    def __init__(self, callbacks: Iterable[Callback] = ()) -> None:
        self.callbacks = list(callbacks)

    def state(self) -> Mapping[str, Tensor]:
        """Return the tensors of all callbacks; their names must differ."""
        found: dict[str, Tensor] = {}
        for callback in self.callbacks:
            for name, value in callback.state().items():
                if name in found:
                    raise ValueError(f"two callbacks have a state tensor named {name!r}")
                found[name] = value
        return found

    def on_resume(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Call every callback."""
        for callback in self.callbacks:
            callback.on_resume(records)

    def on_train_begin(self, total_steps: int, step: int) -> None:
        """Call every callback."""
        for callback in self.callbacks:
            callback.on_train_begin(total_steps, step)

    def on_plan_change(self, total_steps: int) -> None:
        """Call every callback."""
        for callback in self.callbacks:
            callback.on_plan_change(total_steps)

    def on_gradients(self) -> None:
        """Call every callback."""
        for callback in self.callbacks:
            callback.on_gradients()

    def on_optimizer_step(self, step: int) -> None:
        """Call every callback."""
        for callback in self.callbacks:
            callback.on_optimizer_step(step)

    def on_step_end(self, record: StepRecord) -> None:
        """Call every callback."""
        for callback in self.callbacks:
            callback.on_step_end(record)

    def on_evaluate(self, record: EvaluationRecord) -> None:
        """Call every callback."""
        for callback in self.callbacks:
            callback.on_evaluate(record)

    def on_message(self, text: str) -> None:
        """Call every callback."""
        for callback in self.callbacks:
            callback.on_message(text)

    def on_train_end(self) -> None:
        """Call every callback."""
        for callback in self.callbacks:
            callback.on_train_end()
