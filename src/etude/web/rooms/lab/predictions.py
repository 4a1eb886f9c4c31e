"""What a run gave for held-out samples, before and after training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from etude.tuning.runs.folder import RunFolder

SHOWN = 50


@dataclass(frozen=True)
class Prediction:
    """One held-out sample."""

    origin: str
    prompt: str
    reference: str
    before: str
    after: str
    score: float | None
    """0 to 100; None where the task has none."""
    score_before: float | None


@dataclass(frozen=True)
class Predictions:
    """Held-out samples of a run."""

    rows: list[Prediction]
    count: int
    """Of all; `rows` are the first `SHOWN` in the order asked for."""
    improved: int
    """Samples that are better than before training."""
    worsened: int


def predictions_of(run: RunFolder, *, worst_first: bool) -> Predictions | None:
    """Return held-out samples; None where none was evaluated.

    Raises:
        RunError: samples.jsonl is damaged.
    """
    found = [_prediction(record) for record in run.read_samples()]
    if not found:
        return None
    changes = [
        one.score - one.score_before
        for one in found
        if one.score is not None and one.score_before is not None
    ]
    if worst_first:
        found.sort(key=lambda one: 100.0 if one.score is None else one.score)
    return Predictions(
        found[:SHOWN], len(found), sum(c > 0 for c in changes), sum(c < 0 for c in changes)
    )


def _prediction(record: dict[str, Any]) -> Prediction:
    reference, after = str(record.get("reference", "")), str(record.get("after", ""))
    before = str(record.get("before", ""))
    score, score_before = record.get("score_after"), record.get("score_before")
    if score is None and reference:
        score, score_before = 100.0 * (after == reference), 100.0 * (before == reference)
    return Prediction(
        str(record.get("origin", "")),
        str(record.get("prompt", "")),
        reference,
        before,
        after,
        score if isinstance(score, int | float) else None,
        score_before if isinstance(score_before, int | float) else None,
    )
