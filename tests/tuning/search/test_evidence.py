"""Standard errors against their formulas, and what may be concluded from them."""

from __future__ import annotations

import math
from operator import gt, lt

import pytest

from etude.tuning.search.evidence import DRAWS, select, standard_error
from etude.tuning.search.trial import Trial

# A standard deviation of so many draws has a relative error of 1/√(2·draws); five of them.
CLOSE = 5 / math.sqrt(2 * DRAWS)


def test_the_error_of_accuracy_is_that_of_a_binomial():
    details = {"confusion_matrix": {"counts": [[170, 30], [50, 150]]}}
    expected = math.sqrt(0.8 * 0.2 / 400)
    assert standard_error(details, "accuracy") == pytest.approx(expected, rel=CLOSE)


def test_the_error_of_macro_f1_is_that_of_samples_drawn_again():
    import numpy as np
    from sklearn.metrics import f1_score

    counts = np.array([[40, 10, 0], [5, 30, 5], [0, 2, 8]])
    truth = np.repeat(np.arange(3), counts.sum(axis=1))
    predicted = np.concatenate([np.repeat(np.arange(3), row) for row in counts])
    generator = np.random.default_rng(1)
    drawn = [generator.integers(0, len(truth), len(truth)) for _ in range(600)]
    expected = np.std([f1_score(truth[i], predicted[i], average="macro") for i in drawn], ddof=1)
    found = standard_error({"confusion_matrix": {"counts": counts.tolist()}}, "macro_f1")
    assert found == pytest.approx(expected, rel=5 / math.sqrt(2 * 600))


def test_the_error_of_a_loss_is_that_of_a_mean_over_equal_parts():
    losses = [2.0, 2.5, 1.5, 3.0, 2.2, 2.8, 1.9, 2.4, 2.6, 2.1]
    mean = sum(losses) / 10
    expected = math.sqrt(sum((one - mean) ** 2 for one in losses)) / 10
    details = {"loss_parts": [[7 * one, 7.0] for one in losses]}
    assert standard_error(details, "eval_loss") == pytest.approx(expected, rel=CLOSE)


def test_what_a_run_did_not_record_has_no_error():
    assert standard_error({}, "accuracy") is None
    assert standard_error({"loss_parts": [[1.0, 1.0]] * 3}, "eval_loss") is None


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
