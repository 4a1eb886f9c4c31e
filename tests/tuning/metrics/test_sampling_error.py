"""Standard errors over samples, against their formulas and against samples drawn again."""

from __future__ import annotations

import math

import pytest

from etude.tuning.metrics.sampling_error import DRAWS, standard_error, standard_errors

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


def test_the_error_of_entity_f1_is_that_of_sentences_drawn_again():
    import numpy as np

    generator = np.random.default_rng(2)
    counts = [[2, int(generator.integers(1, 4)), int(generator.integers(0, 2))] for _ in range(60)]
    drawn = [np.array(counts)[generator.integers(0, 60, 60)].sum(axis=0) for _ in range(600)]
    expected = np.std([2 * both / (true + found) for true, found, both in drawn], ddof=1)
    found = standard_errors({"entity_counts": counts}, ["entity_f1", "accuracy"])
    assert found == {"entity_f1": pytest.approx(expected, rel=5 / math.sqrt(2 * 600))}
