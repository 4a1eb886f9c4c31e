"""When a run is said to have ended worse than it began."""

from __future__ import annotations

import math

import pytest

from etude.tuning.config.recipe import Recipe
from etude.tuning.metrics.metric import ACCURACY, ROUGE_L
from etude.tuning.training.measurement import Measurement
from etude.tuning.verdict import FAR, is_far_worse, verdict

RECIPE = Recipe.parse({"data": {"train": "rows.jsonl"}, "train": {"lr": 10.0}})


def said(before: float, after: float, *, accuracy: tuple[float, float] = (0.5, 0.5)) -> str | None:
    first, last = accuracy
    begin = Measurement(before, {"accuracy": first})
    end = Measurement(after, {"accuracy": last})
    restored = is_far_worse(begin, end, [ACCURACY, ROUGE_L])
    return verdict(begin, end, RECIPE, [ACCURACY, ROUGE_L], restored=restored)


def test_a_loss_that_fell_or_stayed_needs_no_word():
    assert said(3.0, 2.0) is None
    assert said(3.0, 3.0) is None


def test_a_loss_that_rose_a_little_is_said_with_what_to_do():
    text = said(3.0, 3.1)
    assert text is not None and "3.000 to 3.100" in text
    assert "train.lr (10)" in text and "train.eval_every" in text


@pytest.mark.parametrize("after", [3.0 * FAR + 0.01, math.inf, math.nan])
def test_a_loss_that_rose_far_restores_what_was_before(after):
    text = said(3.0, after)
    assert text is not None and "far worse" in text and "as it was before training" in text


def test_a_classifier_that_is_right_more_often_has_not_failed_whatever_its_loss():
    assert said(0.5, 0.6, accuracy=(0.80, 0.81)) is None
    assert said(0.2, 0.9, accuracy=(0.80, 0.90)) is None


def test_a_little_luck_does_not_outweigh_a_loss_that_rose_far():
    text = said(0.7, 6.0, accuracy=(0.48, 0.51))
    assert text is not None and "far worse" in text
