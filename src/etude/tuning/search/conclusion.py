"""What a search says at its end, in words: of the default, the best and the cheapest as good."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from etude.core import units as q
from etude.tuning.search.record import SearchRecord
from etude.tuning.search.settings import COSTS
from etude.tuning.search.trial import OVER, STATES, Trial, TrialState
from etude.tuning.search.view import cost_text, metric_text, value_text


def conclusions(record: SearchRecord, keys: Sequence[str]) -> list[tuple[str, str]]:
    """Return (label, text) of what follows from the trials, the most important first.

    Args:
        record: of the search.
        keys: dotted keys that are searched.
    """
    chosen = record.selection
    default, best, cheapest = (
        record.trial(number) for number in (chosen.default, chosen.best, chosen.cheapest)
    )
    lines: list[tuple[str, str]] = []
    if default is not None:
        lines.append(("default", f"trial {default.number}: {_said(default, record)}"))
    if best is not None:
        text = f"trial {best.number}: {_said(best, record)}; {changes(best, default, keys)}"
        lines.append(("best", text if best is not default else changes(best, default, keys)))
    if cheapest is not None and best is not None:
        lines.append(("cheapest", _cheapest(cheapest, best, default, record, keys)))
    if len(chosen.front) > 1:
        names = ", ".join(map(str, chosen.front))
        costs = " and ".join(COSTS[name] for name in record.against)
        lines.append(("front", f"no trial beats these in both quality and {costs}: {names}"))
    if lost := left_out(record):
        lines.append(("left out", lost))
    return lines


def changes(trial: Trial, default: Trial | None, keys: Sequence[str]) -> str:
    """Return what a trial changes in the default recipe: `lr 5.00e-4 → 1.20e-3`."""
    if default is None or trial.number == default.number:
        return "the default recipe itself"
    said: list[str] = []
    for key in keys:
        own, other = trial.values.get(key), default.values.get(key)
        if own == other and (key in trial.values) == (key in default.values):
            continue
        name = key.rpartition(".")[2]
        before = value_text(key, other) if key in default.values else q.UNKNOWN
        after = value_text(key, own) if key in trial.values else q.UNKNOWN
        said.append(f"{name} {before} → {after}")
    return ", ".join(said)


def left_out(record: SearchRecord) -> str:
    """Return how many trials have no value, and why; empty if all have."""
    counts = Counter[TrialState](t.state for t in record.trials if t.state in OVER)
    return ", ".join(f"{count} {STATES[state]}" for state, count in counts.items())


def _said(trial: Trial, record: SearchRecord) -> str:
    parts = [f"{record.metric.title} {metric_text(trial, record)}"]
    if (trained := trial.figures.get("trainable_parameters")) is not None:
        parts.append(f"{q.short_number(trained)} trained parameters")
    parts += [cost_text(name, trial.figures.get(name)) for name in record.against]
    if (seconds := trial.figures.get("train_seconds")) is not None:
        parts.append(f"{q.duration(seconds)} of training")
    return ", ".join(dict.fromkeys(parts))


def _cheapest(
    cheapest: Trial,
    best: Trial,
    default: Trial | None,
    record: SearchRecord,
    keys: Sequence[str],
) -> str:
    if best.error is None:
        return "not named: this task records no standard error of its metric"
    if cheapest.number == best.number:
        return "the best is also the cheapest within one standard error"
    return (
        f"within one standard error of the best, trial {cheapest.number}: "
        f"{_said(cheapest, record)}; {changes(cheapest, default, keys)}"
    )
