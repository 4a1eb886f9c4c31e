"""What a model does on the held-out samples, before training and after it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Measurement:
    """What a model does on the held-out samples."""

    loss: float
    """In the unit of the objective: nats per trained token, where answers are learnt."""
    metrics: dict[str, float] = field(default_factory=dict[str, float])
    """Every other metric of the task by name: ROUGE-L, accuracy, rewards, ..."""
    predictions: list[str] = field(default_factory=list[str])
    """What the model gave the first held-out samples, as text: answers, names of classes."""
    scores: list[float] = field(default_factory=list[float])
    """Of each prediction, 0 to 100."""
    details: dict[str, Any] = field(default_factory=dict[str, Any])
    """Plain data that the report draws, by name: see `report/details`. Kept of the last
    measurement only, in details.json."""

    outputs_hash: str = ""
    """Of the model's outputs; equal ones before and after training come of an adapter that is not
    active. Empty where the task does not compute it."""
    chosen: dict[str, Any] = field(default_factory=dict[str, Any])
    """Chosen on the held-out samples, to be saved with the head: the threshold of each label."""

    def as_json(self) -> dict[str, Any]:
        """Return before.json."""
        left_out = ("details", "chosen")
        return {name: value for name, value in vars(self).items() if name not in left_out}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Measurement:
        """Read before.json, that of version 0.1.0 too, which knew answers and ROUGE-L only."""
        if "answers" not in content:
            return cls(**content)
        rouge = content["rouge"]
        metrics = dict(content["metrics"])
        if rouge:
            metrics["rouge"] = sum(rouge) / len(rouge)
        return cls(content["loss"], metrics, content["answers"], rouge)


def unchanged(base: Measurement, tuned: Measurement) -> str | None:
    """Return a line if the tuned model gave exactly what its base gives; else None.

    Training moves every loss a little. Where none moved, the adapter is not in use, or what it was
    trained on is not what is measured.
    """
    if base.loss != tuned.loss or base.predictions != tuned.predictions:
        return None
    return (
        "the tuned model gives exactly the outputs of its base: its adapter changes nothing; check "
        "that it was trained (steps, learning rate) and that it belongs to this model"
    )
