"""Accuracy, confusion matrix and macro-F1 are scikit-learn's."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from etude.tuning.metrics.classification import accuracy, confusion_matrix, macro_f1


@given(
    st.integers(2, 6).flatmap(
        lambda classes: st.tuples(
            st.just(classes),
            st.lists(
                st.tuples(st.integers(0, classes - 1), st.integers(0, classes - 1)),
                min_size=1,
                max_size=40,
            ),
        )
    )
)
def test_metrics_are_those_of_scikit_learn(case):
    classes, pairs = case
    labels, predicted = ([pair[side] for pair in pairs] for side in (0, 1))
    every = list(range(classes))
    assert accuracy(labels, predicted) == pytest.approx(
        sklearn_metrics.accuracy_score(labels, predicted), abs=1e-15
    )
    wanted = sklearn_metrics.confusion_matrix(labels, predicted, labels=every)
    np.testing.assert_array_equal(confusion_matrix(labels, predicted, classes), wanted)
    expected = sklearn_metrics.f1_score(
        labels, predicted, labels=every, average="macro", zero_division=0
    )
    assert macro_f1(labels, predicted, classes) == pytest.approx(expected, abs=1e-12)


def test_without_samples_there_is_no_accuracy():
    assert math.isnan(accuracy([], []))
