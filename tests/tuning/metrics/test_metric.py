"""Metrics say how they are written and which way is better; summaries of 0.1.0 are understood."""

from __future__ import annotations

import json

import pytest

from etude.tuning.metrics.metric import (
    ACCURACY,
    CORRECT,
    MACRO_F1,
    REWARD_MARGIN,
    ROUGE_L,
    Metric,
    loss_metric,
    metrics_of,
    sample_score,
)


@pytest.mark.parametrize(
    ("metric", "value", "text", "change"),
    [
        (loss_metric("nats"), 2.5, "2.500", "−37.5 %"),
        (ACCURACY, 0.875, "87.5 %", "−312.5"),
        (ROUGE_L, 27.93, "27.9", "+23.9"),
        (REWARD_MARGIN, 0.25, "0.250", "−3.750"),
    ],
)
def test_values_and_changes_are_written_by_the_metric(metric, value, text, change):
    assert metric.text(value) == text
    assert metric.change(4.0, value) == change
    assert metric.change(None, value) == metric.text(None) == "–"


def test_a_loss_is_better_when_it_is_lower_and_a_score_when_it_is_higher():
    assert loss_metric("nats").better(1.0, 2.0)
    assert MACRO_F1.better(0.9, 0.8)
    assert not MACRO_F1.better(0.8, 0.8)


def test_a_class_that_was_predicted_reads_correct():
    assert [CORRECT.text(value) for value in (100.0, 0.0, None)] == ["correct", "wrong", "–"]


def test_a_metric_survives_json():
    written = json.loads(json.dumps(MACRO_F1.as_json()))
    assert Metric.from_json(written) == MACRO_F1


def test_a_summary_lists_its_metrics_and_those_without_a_value_are_left_out():
    summary = {"metrics": [m.as_json() for m in (loss_metric("u"), ACCURACY, MACRO_F1)]}
    found = metrics_of({**summary, "eval_loss": 0.3, "accuracy": 0.9}, "")
    assert [metric.name for metric in found] == ["eval_loss", "accuracy"]
    assert found[0].note == "u"


def test_a_summary_of_0_1_0_is_known_by_its_keys():
    found = metrics_of({"eval_loss": 2.0, "rouge": 20.0, "accuracy": None}, "nats")
    assert [metric.title for metric in found] == ["evaluation loss", "ROUGE-L"]
    assert sample_score({}) == ROUGE_L
