"""Metrics of labels, probabilities and numbers are those of scikit-learn and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sklearn_metrics

from etude.tuning.metrics.calibration import reliability
from etude.tuning.metrics.classification import (
    class_report,
    confusion_matrix,
    f1_of_labels,
    label_report,
)
from etude.tuning.metrics.precision_recall import (
    average_precision,
    best_threshold,
    best_thresholds,
    curve,
    precision_at,
)
from etude.tuning.metrics.regression import regression_metrics

SEEDS = st.integers(0, 10_000)


@given(SEEDS, st.integers(1, 60), st.integers(1, 5))
def test_f1_of_labels_and_their_report(seed, rows, labels):
    random = np.random.default_rng(seed)
    truth, predicted = random.random((2, rows, labels)) < 0.4
    micro, macro = f1_of_labels(truth, predicted)
    arrays = truth.astype(int), predicted.astype(int)
    for average, value in (("micro", micro), ("macro", macro)):
        wanted = (
            sklearn_metrics.f1_score(
                *(a.reshape(rows, labels) for a in arrays), average=average, zero_division=0
            )
            if labels > 1
            else None
        )
        if wanted is not None:
            assert value == pytest.approx(wanted, abs=1e-12)
    report = label_report(truth, predicted)
    if labels > 1:
        wanted = sklearn_metrics.precision_recall_fscore_support(*arrays, zero_division=0)
        for name, values in zip(("precision", "recall", "f1", "support"), wanted, strict=True):
            np.testing.assert_allclose(report[name], values, atol=1e-12)


@given(SEEDS, st.integers(1, 60), st.integers(2, 5))
def test_the_report_of_classes(seed, rows, classes):
    random = np.random.default_rng(seed)
    truth, predicted = random.integers(0, classes, (2, rows))
    report = class_report(confusion_matrix(truth.tolist(), predicted.tolist(), classes))
    wanted = sklearn_metrics.precision_recall_fscore_support(
        truth, predicted, labels=range(classes), zero_division=0
    )
    for name, values in zip(("precision", "recall", "f1", "support"), wanted, strict=True):
        np.testing.assert_allclose(report[name], values, atol=1e-12)


@given(SEEDS, st.integers(2, 80), st.booleans())
def test_precision_recall_and_average_precision(seed, rows, ties):
    random = np.random.default_rng(seed)
    truth = random.random(rows) < 0.4
    scores = random.random(rows)
    if ties:
        scores = np.round(scores, 1)
    if not truth.any():
        assert average_precision(truth, scores) is None
        return
    wanted = sklearn_metrics.average_precision_score(truth, scores)
    assert average_precision(truth, scores) == pytest.approx(wanted, abs=1e-12)
    precision, recall, thresholds = curve(truth, scores)
    theirs = sklearn_metrics.precision_recall_curve(truth, scores)
    # scikit-learn's are ascending, with a last point of recall 0.
    np.testing.assert_allclose(thresholds[::-1], theirs[2])
    np.testing.assert_allclose(precision[::-1], theirs[0][:-1])
    np.testing.assert_allclose(recall[::-1], theirs[1][:-1])
    grid = np.linspace(0, 1, 11)
    expected = [precision[np.flatnonzero(recall >= r - 1e-12)[0]] for r in grid]
    np.testing.assert_allclose(precision_at(truth, scores, grid), expected)


@given(SEEDS, st.integers(1, 40))
def test_no_threshold_has_a_better_f1(seed, rows):
    random = np.random.default_rng(seed)
    truth, scores = random.random(rows) < 0.4, np.round(random.random(rows), 2)
    threshold = best_threshold(truth, scores)
    if not truth.any():
        assert threshold == 0.5
        return
    found = sklearn_metrics.f1_score(truth, scores > threshold, zero_division=0)
    best = max(
        sklearn_metrics.f1_score(truth, scores > t, zero_division=0)
        for t in np.append(np.unique(scores), -1)
    )
    assert found == pytest.approx(best, abs=1e-12)


def test_a_shared_threshold_is_that_of_the_best_micro_f1():
    random = np.random.default_rng(1)
    truth, scores = random.random((50, 3)) < 0.3, random.random((50, 3))
    (threshold, *others) = best_thresholds(truth, scores, shared=True)
    assert others == [threshold, threshold]
    micro = f1_of_labels(truth, scores > threshold)[0]
    assert micro == pytest.approx(
        max(f1_of_labels(truth, scores > t)[0] for t in np.linspace(-0.001, 1, 2001)), abs=1e-12
    )
    assert len(set(best_thresholds(truth, scores, shared=False))) == 3


@given(SEEDS, st.integers(1, 200))
def test_reliability_is_the_mean_of_each_bin(seed, rows):
    random = np.random.default_rng(seed)
    confidence = random.random(rows)
    right = random.random(rows) < confidence
    bins, error = reliability(confidence, right)
    assert sum(one.count for one in bins) == rows
    expected = 0.0
    for low in np.arange(10) / 10:
        inside = (confidence > low) & (confidence <= low + 0.1)
        if inside.any():
            gap = abs(right[inside].mean() - confidence[inside].mean())
            expected += inside.mean() * gap
    assert error == pytest.approx(expected, abs=1e-9)
    # scikit-learn's calibration curve has the same points.
    from sklearn.calibration import calibration_curve

    share, mean = calibration_curve(right, confidence, n_bins=10)
    np.testing.assert_allclose([one.accuracy for one in bins], share)
    np.testing.assert_allclose([one.confidence for one in bins], mean)


@given(SEEDS, st.integers(3, 60))
def test_errors_and_correlations_of_numbers(seed, rows):
    random = np.random.default_rng(seed)
    truth = np.round(random.normal(size=rows), 1)
    found = truth + random.normal(size=rows)
    truth[0], truth[1] = -9.0, 9.0
    values = regression_metrics(truth.tolist(), found.tolist())
    assert values["rmse"] == pytest.approx(sklearn_metrics.root_mean_squared_error(truth, found))
    assert values["mae"] == pytest.approx(sklearn_metrics.mean_absolute_error(truth, found))
    assert values["pearson"] == pytest.approx(stats.pearsonr(truth, found).statistic)
    assert values["spearman"] == pytest.approx(stats.spearmanr(truth, found).statistic)


def test_a_constant_prediction_has_no_correlation():
    values = regression_metrics([1.0, 2.0, 3.0], [2.0, 2.0, 2.0])
    assert values["pearson"] == values["spearman"] == 0.0
