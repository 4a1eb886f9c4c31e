"""What may be concluded from trials and their standard errors."""

from __future__ import annotations

from operator import gt, lt

from etude.tuning.search.evidence import select
from etude.tuning.search.trial import Trial


def _finished(number, *objectives, parameters=100, error=0.01):
    figures = {"trainable_parameters": parameters, "train_seconds": 1.0}
    return Trial(number, {}, "finished", objectives=list(objectives), error=error, figures=figures)


def test_the_cheapest_within_one_standard_error_is_named():
    trials = [
        _finished(0, 0.80, parameters=300),
        _finished(1, 0.900, parameters=400),
        _finished(2, 0.895, parameters=50),
        _finished(3, 0.885, parameters=10),
        Trial(4, {}, "failed"),
    ]
    chosen = select(trials, gt)
    assert (chosen.default, chosen.best, chosen.cheapest) == (0, 1, 2)


def test_without_an_error_only_the_best_is_as_good_as_the_best():
    trials = [_finished(0, 1.0, error=None), _finished(1, 0.999, error=None, parameters=900)]
    assert select(trials, lt).cheapest == 1


def test_the_front_is_of_trials_that_no_other_beats_in_all():
    trials = [
        _finished(0, 0.8, 500.0),
        _finished(1, 0.9, 400.0),
        _finished(2, 0.7, 50.0),
        _finished(3, 0.7, 60.0),
        _finished(4, 0.9, 400.0),
    ]
    assert select(trials, gt).front == (1, 2, 4)
