"""The learning-rate range test: on curves that are known, and on a small run."""

from __future__ import annotations

import json
import math
import random
import tempfile
from pathlib import Path

import pytest

from etude.core.errors import RunError
from etude.tuning.training.lr_range import FLAT, RangeTest, range_test
from etude.tuning.training.step import NotFiniteError, StepOutcome

pytestmark = pytest.mark.integration


class Steps:
    """Steps whose loss is a function of the rate."""

    def __init__(self, loss):
        self.loss, self.taken = loss, []
        self.objective = type("Objective", (), {"unit": "nats"})()

    def training(self):
        from contextlib import nullcontext

        return nullcontext()

    def take(self, number, lr, stop=None):
        del stop
        self.taken.append((number, lr))
        value = self.loss(lr)
        if not math.isfinite(value):
            raise NotFiniteError("the loss became inf", [])
        return StepOutcome(value, 1.0, 1, 1, 1.0, {})


def valley(rate):
    """3 at small rates, 1 at 1e-2, steep above."""
    place = math.log10(rate)
    return 3 - 2 * math.exp(-((place + 2) ** 2) / 0.8) + max(0.0, place + 1.3) ** 2 * 8


def test_the_rates_rise_by_one_factor_from_the_first_to_the_last():
    steps = Steps(lambda rate: 1.0)
    found = range_test(steps, low=1e-4, high=1e-1, count=31)
    assert found.rates[0] == 1e-4 and found.rates[-1] == pytest.approx(1e-1)
    ratios = [b / a for a, b in zip(found.rates, found.rates[1:], strict=False)]
    assert ratios == [pytest.approx(10**0.1)] * 30
    assert [number for number, _ in steps.taken] == list(range(31))
    assert not found.fell
    assert found.as_json()["proposal"] is None


def test_a_valley_is_found_where_it_is_and_how_flat_it_is():
    found = range_test(Steps(valley), low=1e-5, high=1.0, count=100)
    assert found.rates[found.lowest] == pytest.approx(1e-2, rel=0.35)
    assert found.rates[found.steepest] < found.proposal < found.rates[found.lowest]
    assert found.proposal == float(f"{found.proposal:.1e}")
    low, high = found.flat
    inside = [
        value
        for rate, value in zip(found.rates, found.smoothed, strict=True)
        if low <= rate <= high
    ]
    assert max(inside) <= (1 + FLAT) * min(found.smoothed)
    assert max(inside) - min(found.smoothed) <= (found.began - min(found.smoothed)) / 2
    assert low < found.rates[found.lowest] < high
    assert found.fell


def test_noise_alone_is_rarely_called_a_fall_and_a_clear_fall_always_is():
    def fell(seed, depth):
        drawn = random.Random(seed)
        steps = Steps(lambda rate: 1 - depth * min(1.0, rate / 0.1) + 0.05 * drawn.gauss(0, 1))
        return range_test(steps, low=1e-4, high=1.0, count=100).fell

    assert sum(fell(seed, 0.0) for seed in range(60)) <= 6
    assert all(fell(seed, 0.3) for seed in range(20))


def test_it_ends_where_the_loss_diverges():
    found = range_test(Steps(lambda rate: 2.0 if rate < 1e-2 else 50.0), low=1e-5, high=1, count=80)
    assert len(found.rates) < 80
    assert "4 times the lowest" in found.ended or "untrained model" in found.ended
    found = range_test(
        Steps(lambda rate: valley(rate) if rate < 0.05 else math.inf), low=1e-5, high=1, count=80
    )
    assert "the loss became inf" in found.ended
    assert max(found.rates) < 0.05


def test_a_loss_that_is_not_finite_at_once_is_an_error():
    with pytest.raises(RunError, match=r"at learning rate 1\.0e-05, in step 1; begin lower"):
        range_test(Steps(lambda rate: math.inf), low=1e-5, high=1, count=30)


def test_smoothing_without_lag_leaves_a_symmetric_minimum_in_its_place():
    values = [abs(i - 30) + 1.0 for i in range(61)]
    by_rate = dict(zip([10 ** (i / 10) for i in range(61)], values, strict=True))
    nearest = lambda rate: by_rate[min(by_rate, key=lambda known: abs(known - rate))]  # noqa: E731
    found = range_test(Steps(nearest), low=1.0, high=1e6, count=61)
    assert isinstance(found, RangeTest)
    assert found.lowest == 30


def test_the_command_proposes_a_rate_and_leaves_nothing_behind(
    tiny_recipe, tmp_path, etude_command, monkeypatch
):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(json.dumps(tiny_recipe()), "utf-8")
    here = tmp_path / "here"
    here.mkdir()
    done = etude_command("lr-find", recipe, "--steps", "40", cwd=here)
    assert done.returncode == 0, done.stderr
    assert "Proposed: train.lr" in done.stdout
    assert "flat neighbourhood" in done.stdout
    assert list(here.iterdir()) == []
    assert list(temporary.iterdir()) == []
    options = ("--steps", "40", "--svg", "lr.svg", "--html", "lr.html", "--json")
    done = etude_command("lr-find", recipe, *options, cwd=here)
    found = json.loads(done.stdout)
    assert found["train.lr"] == 1e-2
    assert len(found["rates"]) == len(found["losses"]) == len(found["smoothed"])
    assert sorted(path.name for path in here.iterdir()) == ["lr.html", "lr.svg"]
    assert Path(here / "lr.svg").read_text("utf-8").startswith("<svg")
    assert "Every step" in Path(here / "lr.html").read_text("utf-8")


def test_two_tests_of_a_recipe_are_the_same(tiny_recipe, tmp_path, etude_command):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(json.dumps(tiny_recipe(adapter={"dropout": 0.1})), "utf-8")
    first, second = (
        json.loads(etude_command("lr-find", recipe, "--steps", "25", "--json").stdout)
        for _ in range(2)
    )
    assert first == second


def test_a_range_that_is_none_is_one_line(tiny_recipe, tmp_path, etude_command):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(json.dumps(tiny_recipe()), "utf-8")
    done = etude_command("lr-find", recipe, "--from", "1e-2", "--to", "1e-3")
    assert done.returncode == 2
    assert "the lowest rate 0.01 is not below the highest, 0.001" in done.stderr
