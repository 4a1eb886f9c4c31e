"""Means, spreads and intervals over folds, against SciPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from etude.tuning.cross_validation.results import Fold, spreads
from etude.tuning.cross_validation.student_t import cumulative, quantile


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 9, 10, 49, 200])
def test_quantiles_are_those_of_scipy(freedom):
    assert quantile(0.975, freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-10)
    for t in (0.0, 0.3, 2.5, 40.0):
        assert cumulative(t, freedom) == pytest.approx(stats.t.cdf(t, freedom), abs=1e-13)


def fold(accuracy, **more):
    metrics = [
        {"name": "accuracy", "title": "accuracy", "format": "percent", "higher_is_better": True}
    ]
    summary = {"metrics": metrics, "accuracy": accuracy, **more}
    return Fold(1, 1, None, "finished", summary, trained=80, held_out=20)


def test_the_interval_is_the_corrected_resampled_t():
    values = [0.81, 0.86, 0.79, 0.9, 0.84]
    (found,) = spreads([*(fold(value, accuracy_before=0.5) for value in values)])
    deviation = np.std(values, ddof=1)
    error = deviation * math.sqrt(1 / 5 + 20 / 80)
    low, high = stats.t.interval(0.95, 4, loc=np.mean(values), scale=error)
    assert (found.mean, found.deviation, found.error) == pytest.approx(
        (np.mean(values), deviation, error)
    )
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.before == 0.5
    assert spreads([fold(0.8)]) == []


def test_the_interval_covers_the_truth_where_folds_share_their_training_data():
    """Of 300 data sets, folds of a model (the mean) whose error on new data is known."""
    generator = np.random.default_rng(0)
    plain = corrected = 0
    for _ in range(300):
        data = generator.normal(size=60)
        parts = np.arange(60) % 5
        losses = [
            float(((data[parts == k] - data[parts != k].mean()) ** 2).mean()) for k in range(5)
        ]
        # Of data never seen: the variance, and that of a mean of 48.
        truth = 1 + 1 / 48
        folds = [
            Fold(
                1,
                k,
                None,
                "finished",
                {
                    "metrics": [
                        {
                            "name": "accuracy",
                            "title": "",
                            "format": "loss",
                            "higher_is_better": False,
                        }
                    ],
                    "accuracy": loss,
                },
                48,
                12,
            )
            for k, loss in enumerate(losses)
        ]
        (found,) = spreads(folds)
        corrected += found.low <= truth <= found.high
        half = quantile(0.975, 4) * found.deviation / 5**0.5
        plain += abs(found.mean - truth) <= half
    assert corrected >= 0.95 * 300
    assert plain < corrected
