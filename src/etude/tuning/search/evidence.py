"""What a search may conclude: the best trial, the cheapest as good, the front of several aims.

Trials whose metric differs by less than its standard error over the evaluation samples are not told
apart. The one-standard-error rule (Breiman et al. 1984, section 3.4.3) takes, of the trials within
one standard error of the best, the cheapest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from etude.tuning.search.record import Selection
from etude.tuning.search.trial import Trial


def cost(trial: Trial) -> tuple[float, float]:
    """Return what a trial costs: trained parameters, then seconds of training."""
    figures = trial.figures
    return (
        float(figures.get("trainable_parameters") or 0),
        float(figures.get("train_seconds") or 0.0),
    )


def select(trials: Sequence[Trial], better: Callable[[float, float], bool]) -> Selection:
    """Name the default, the best, the cheapest as good, and the Pareto front.

    Args:
        trials: of the search, those of every state.
        better: whether the first value of the metric is better than the second.
    """
    finished = [trial for trial in trials if trial.objectives]
    if not finished:
        return Selection(None, None, None)
    best = finished[0]
    for trial in finished[1:]:
        if better(trial.objectives[0], best.objectives[0]):
            best = trial
    within = [
        trial
        for trial in finished
        if trial is best or abs(trial.objectives[0] - best.objectives[0]) <= (best.error or 0.0)
    ]
    cheapest = min(within, key=lambda trial: (*cost(trial), trial.number))
    front: tuple[int, ...] = ()
    if len(best.objectives) > 1:
        front = tuple(one.number for one in finished if not _dominated(one, finished, better))
    default = finished[0].number if finished[0].number == 0 else None
    return Selection(default, best.number, cheapest.number, front)


def _dominated(
    trial: Trial, others: Sequence[Trial], better: Callable[[float, float], bool]
) -> bool:
    """Whether another trial is as good in every objective, and better in one."""
    for other in others:
        first, *costs = other.objectives
        own, *own_costs = trial.objectives
        worse = better(own, first) or any(c > o for c, o in zip(costs, own_costs, strict=True))
        gains = better(first, own) or any(c < o for c, o in zip(costs, own_costs, strict=True))
        if gains and not worse:
            return True
    return False
