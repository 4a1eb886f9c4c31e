"""Callbacks: what acts on a run, or watches it, without the training loop knowing what that is.

The terminal view is one, AdaLoRA's rank allocator another. The loop calls every callback at each
stage, in the order in which they were given; a callback overrides the methods that concern it.
Tensors in a callback's `state` are part of a checkpoint: one that changes weights resumes exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class StepRecord:
    """One optimiser step, a line of metrics.jsonl."""

    step: int
    """From 1."""
    total_steps: int
    """Planned for the whole run; a time limit may shorten the plan."""
    epoch: float
    tokens: int
    """That went through the model since the run began."""
    trained_tokens: int
    """Of them, targets of the loss."""
    loss: float
    """Mean of the step, in the objective's unit."""
    lr: float
    grad_norm: float
    """L2 norm over all trained weights, before clipping."""
    tokens_per_s: float
    rss: int
    """Resident bytes of the process."""
    seconds: float
    """Of training since the run began, evaluation left out."""
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    """What else the objective reports: rewards, margin, accuracy."""
    peak_gpu_memory: int | None = None
    """Most bytes of tensors on the GPU so far; None on a processor."""

    def as_json(self) -> dict[str, Any]:
        """Return the flat line that is written, without what is not known."""
        fields = {key: value for key, value in vars(self).items() if value is not None}
        metrics = fields.pop("metrics")
        return {**fields, **metrics}


@dataclass(frozen=True)
class EvaluationRecord:
    """One evaluation in the course of training, a line of metrics.jsonl."""

    step: int
    loss: float
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])

    def as_json(self) -> dict[str, Any]:
        """Return the flat line that is written: `eval_loss`, and `eval_` before each metric."""
        named = {f"eval_{name}": value for name, value in self.metrics.items()}
        return {"step": self.step, "eval_loss": self.loss, **named}


class Callback:
    """Acts on training or watches it; every method does nothing unless it is overridden."""

    def state(self) -> Mapping[str, Tensor]:
        """Return the tensors to keep in checkpoints; they are restored in place."""
        return {}

    def on_train_begin(self, total_steps: int, step: int) -> None:
        """Training starts, or goes on after `step` steps."""

    def on_plan_change(self, total_steps: int) -> None:
        """The time limit has shortened the plan to `total_steps`."""

    def on_gradients(self) -> None:
        """The gradients of a step are complete and not clipped yet."""

    def on_optimizer_step(self, step: int) -> None:
        """Optimiser step `step`, from 1, is done; its gradients are still there."""

    def on_step_end(self, record: StepRecord) -> None:
        """A step is written down."""

    def on_evaluate(self, record: EvaluationRecord) -> None:
        """The held-out samples were evaluated."""

    def on_message(self, text: str) -> None:
        """A line for the person who watches."""

    def on_train_end(self) -> None:
        """Training is over, or was stopped."""


class CallbackList(Callback):
    """Several callbacks as one, called in order."""

    def __init__(self, callbacks: Iterable[Callback] = ()) -> None:
        self.callbacks = list(callbacks)

    def state(self) -> Mapping[str, Tensor]:
        """Return the tensors of all of them; their names must differ."""
        found: dict[str, Tensor] = {}
        for callback in self.callbacks:
            for name, value in callback.state().items():
                if name in found:
                    raise ValueError(f"two callbacks keep a state called {name!r}")
                found[name] = value
        return found

    def on_train_begin(self, total_steps: int, step: int) -> None:
        """Tell all of them."""
        for callback in self.callbacks:
            callback.on_train_begin(total_steps, step)

    def on_plan_change(self, total_steps: int) -> None:
        """Tell all of them."""
        for callback in self.callbacks:
            callback.on_plan_change(total_steps)

    def on_gradients(self) -> None:
        """Tell all of them."""
        for callback in self.callbacks:
            callback.on_gradients()

    def on_optimizer_step(self, step: int) -> None:
        """Tell all of them."""
        for callback in self.callbacks:
            callback.on_optimizer_step(step)

    def on_step_end(self, record: StepRecord) -> None:
        """Tell all of them."""
        for callback in self.callbacks:
            callback.on_step_end(record)

    def on_evaluate(self, record: EvaluationRecord) -> None:
        """Tell all of them."""
        for callback in self.callbacks:
            callback.on_evaluate(record)

    def on_message(self, text: str) -> None:
        """Tell all of them."""
        for callback in self.callbacks:
            callback.on_message(text)

    def on_train_end(self) -> None:
        """Tell all of them."""
        for callback in self.callbacks:
            callback.on_train_end()
