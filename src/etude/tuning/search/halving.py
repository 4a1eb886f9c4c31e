"""Successive halving: which trial is begun, gone on with or given up next.

Trials are halved in brackets of η^(rungs−1), so that one of each bracket is trained in full
(Jamieson and Talwalkar 2016). All trials of a bracket train to the first rung and pause there; the
best one in η, one at least, is resumed from its checkpoint and trains to the next, the others are
given up; and so on. With η = 3 and three rungs a bracket of nine trials costs

    9 · 1/9 + 3 · (1/3 − 1/9) + 1 · (1 − 1/3) = 2.3

trainings in place of nine. A paused run keeps the horizon of its schedule: the learning rate at a
step is that of the full training, so that what is resumed is the run that was paused, bit for bit.

The default recipe is alone in the first bracket and trained in full. Without halving, brackets are
of one trial, and the end is the only rung.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from etude.tuning.search.settings import SearchSettings
from etude.tuning.search.trial import OVER, UNCOUNTED, Trial, percent


@dataclass(frozen=True)
class Begin:
    """A new trial is to be drawn."""

    bracket: int


@dataclass(frozen=True)
class Train:
    """A trial is to be trained, from where it is."""

    number: int
    until: float
    """Share of the training."""


@dataclass(frozen=True)
class Drop:
    """A paused trial is to be given up."""

    number: int


Action = Begin | Train | Drop


def next_action(
    trials: Sequence[Trial], settings: SearchSettings, better: Callable[[float, float], bool]
) -> Action | None:
    """Return what is to be done next; None if the search is complete.

    It follows from the trials alone, so a search that was killed goes on where it was.

    Args:
        trials: in the order of their numbers.
        settings: of the search.
        better: whether the first value of the metric is better than the second.
    """
    shares = settings.shares
    if not trials:
        return Begin(0)
    # What was at work when the search was killed or stopped goes on to where it was going.
    for trial in trials:
        if trial.state == "running":
            return Train(trial.number, 1.0 if trial.bracket == 0 else _after(trial, shares))
    bracket = max(trial.bracket for trial in trials)
    members = [trial for trial in trials if trial.bracket == bracket]
    begun = sum(trial.state not in UNCOUNTED for trial in trials)
    size = settings.bracket if bracket else 1
    full = sum(trial.state not in UNCOUNTED for trial in members) >= size
    if not full and begun < settings.trials and not (bracket == 0 and members[0].state in OVER):
        return Begin(bracket)
    paused = [trial for trial in members if trial.state == "paused"]
    if paused:
        return _halved(members, paused, settings, better)
    return Begin(bracket + 1) if begun < settings.trials else None


def _halved(
    members: Sequence[Trial],
    paused: Sequence[Trial],
    settings: SearchSettings,
    better: Callable[[float, float], bool],
) -> Action:
    """Return the next step of halving a bracket whose trials have all been begun.

    The lowest rung is dealt with first, so that all that reach a rung are there when it is.
    """
    first = min(paused, key=lambda trial: (trial.share, trial.number))
    rung = str(percent(first.share))
    reached = [trial for trial in members if rung in trial.rungs]
    value = first.rungs[rung]
    # Of equal values the earlier trial goes on.
    ahead = sum(
        better(other.rungs[rung], value)
        or (other.rungs[rung] == value and other.number < first.number)
        for other in reached
    )
    if ahead < max(1, len(reached) // settings.eta):
        return Train(first.number, _after(first, settings.shares))
    return Drop(first.number)


def _after(trial: Trial, shares: Sequence[float]) -> float:
    """Return the share of the rung after the last that a trial has reached."""
    return next((share for share in shares if percent(share) > percent(trial.share)), 1.0)
