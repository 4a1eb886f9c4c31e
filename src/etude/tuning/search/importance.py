"""Which keys decide: PED-ANOVA (Watanabe et al. 2023), as Optuna computes it.

It asks how far the values of the best quarter of the trials are from those of all. Trials are
compared by what all of them measured: the lowest rung, or the end without halving. fANOVA answers
another question and would need scikit-learn.
"""

from __future__ import annotations

from collections.abc import Sequence

from etude.tuning.metrics.metric import Metric
from etude.tuning.search.space import Space
from etude.tuning.search.trial import Trial

FEWEST = 12
"""Trials below which importance is noise, and is not shown."""

BEST = 0.25


def importance(space: Space, trials: Sequence[Trial], metric: Metric) -> dict[str, float]:
    """Return the importance of each key that was searched, the largest first.

    Args:
        space: of the search.
        trials: of any state; those with a value count.
        metric: in whose direction trials are compared.

    Returns:
        Shares that sum to 1 by dotted key; empty with too few trials, or where all are alike.
    """
    values = [(trial, value) for trial in trials if (value := _first(trial)) is not None]
    if len(values) < FEWEST or len({value for _, value in values}) < 2:
        return {}
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        direction="maximize" if metric.higher_is_better else "minimize",
        storage=optuna.storages.InMemoryStorage(),
    )
    for trial, value in values:
        active = [one for one in space.ranges if one.key in trial.values]
        study.add_trial(
            optuna.trial.create_trial(
                params={one.key: one.stored(trial.values[one.key]) for one in active},
                distributions={one.key: one.distribution() for one in active},
                value=value,
            )
        )
    try:
        found = get_param_importances(
            study, evaluator=PedAnovaImportanceEvaluator(target_quantile=BEST)
        )
    except (RuntimeError, ValueError):
        return {}
    return {key: float(value) for key, value in found.items()}


def _first(trial: Trial) -> float | None:
    """Return a trial's value at the lowest rung; at the end without halving."""
    if trial.rungs:
        return trial.rungs[min(trial.rungs, key=int)]
    return trial.value
