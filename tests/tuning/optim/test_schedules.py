"""Learning-rate schedules against PyTorch's and transformers' own schedulers, step by step."""

from __future__ import annotations

import math
import random

import pytest
import torch
import transformers
from torch.optim import lr_scheduler

from etude.core.errors import RecipeError
from etude.tuning.config.recipe import Recipe
from etude.tuning.config.sections.train import TrainSpec
from etude.tuning.optim.schedules import (
    SCHEDULES,
    Plateau,
    learning_rate,
    require_schedule_fits,
    warmup_steps,
)

LR = 3e-4


def _rates(spec, total):
    return [learning_rate(spec, step, total) for step in range(total)]


def _optimizer(lr=LR):
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def _theirs(make, total, *, first=1, lr=LR):
    """Return the rates of a scheduler after `first`, `first` + 1, ... calls of `step`."""
    optimizer = _optimizer(lr)
    scheduler = make(optimizer)
    rates = [optimizer.param_groups[0]["lr"]]
    for _ in range(total + first):
        optimizer.step()
        if len(rates) >= total + first:
            break
        scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"])
    return rates[first : total + first]


def spec_of(name, **fields):
    if name == "reduce_lr_on_plateau":
        fields = {"eval_every": 1, **fields}
    return TrainSpec(lr=LR, lr_scheduler=name, **fields)


def test_warm_up_rises_evenly_and_reaches_the_peak_once():
    rates = _rates(TrainSpec(lr=1.0, warmup_ratio=0.25, lr_scheduler="cosine"), 40)
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert max(rates) == rates[9] == 1.0


def test_cosine_equals_pytorchs_annealing():
    spec = spec_of("cosine", warmup_ratio=0.0, min_lr_ratio=0.1)
    theirs = _theirs(lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=30, eta_min=0.1 * LR), 30)
    assert _rates(spec, 30) == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize("warmup", [0, 1, 7])
@pytest.mark.parametrize("total", [8, 60, 601])
@pytest.mark.parametrize(
    ("name", "fields", "make"),
    [
        (
            "constant",
            {},
            lambda o, w, n: transformers.get_constant_schedule_with_warmup(o, w),
        ),
        (
            "linear",
            {"min_lr_ratio": 0.0},
            transformers.get_linear_schedule_with_warmup,
        ),
        (
            "cosine",
            {"min_lr_ratio": 0.0},
            transformers.get_cosine_schedule_with_warmup,
        ),
        (
            "cosine",
            {"min_lr_ratio": 0.2},
            lambda o, w, n: transformers.get_cosine_with_min_lr_schedule_with_warmup(
                o, w, n, min_lr_rate=0.2
            ),
        ),
        (
            "inverse_sqrt",
            {},
            lambda o, w, n: transformers.get_inverse_sqrt_schedule(o, w),
        ),
        (
            "polynomial",
            {"lr_power": 3.0, "min_lr_ratio": 0.05},
            lambda o, w, n: transformers.get_polynomial_decay_schedule_with_warmup(
                o, w, n, lr_end=0.05 * LR, power=3.0
            ),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_step_has_the_rate_that_transformers_gives(name, fields, make, total, warmup):
    spec = spec_of(name, warmup_steps=warmup, **fields)
    theirs = _theirs(lambda o: make(o, warmup, total), total)
    assert _rates(spec, total) == pytest.approx(theirs, rel=1e-12, abs=1e-18)


@pytest.mark.parametrize("cycles", [1, 2, 4])
@pytest.mark.parametrize(("total", "warmup"), [(40, 8), (69, 5), (512, 0)])
def test_restarts_are_those_of_transformers(total, warmup, cycles):
    """With powers of two for cycles or lengths, both compute the place in a cycle exactly."""
    spec = spec_of("cosine_with_restarts", lr_cycles=cycles, warmup_steps=warmup, min_lr_ratio=0.0)
    make = transformers.get_cosine_with_hard_restarts_schedule_with_warmup
    theirs = _theirs(lambda o: make(o, warmup, total, num_cycles=cycles), total)
    assert _rates(spec, total) == pytest.approx(theirs, rel=1e-9, abs=1e-18)


def test_a_restart_comes_in_its_step_where_floats_would_round_it_away():
    """49 · (1/49) is below 1 in floats, and transformers' restart comes a step late there."""
    spec = spec_of("cosine_with_restarts", lr_cycles=49, warmup_steps=0, min_lr_ratio=0.0)
    rates = _rates(spec, 98)
    # Cycles of two steps: half-way down, then at the peak again; at the end in the last step.
    assert rates[1::2][:-1] == [LR] * 48
    assert rates[-1] == 0.0
    assert rates[::2] == pytest.approx([LR / 2] * 49)
    make = transformers.get_cosine_with_hard_restarts_schedule_with_warmup
    assert min(_theirs(lambda o: make(o, 0, 98, num_cycles=49), 98)[1::2][:-1]) < LR / 2


@pytest.mark.parametrize(("total", "warmup"), [(10, 3), (200, 60), (1000, 2), (12, 12)])
def test_one_cycle_is_pytorchs(total, warmup):
    spec = spec_of(
        "one_cycle", warmup_steps=warmup, lr_start_ratio=1 / 25, min_lr_ratio=1 / 25 / 1e4
    )
    theirs = _theirs(
        lambda o: lr_scheduler.OneCycleLR(
            o, max_lr=LR, total_steps=total, pct_start=warmup / total, cycle_momentum=False
        ),
        total,
        first=0,
    )
    assert _rates(spec, total) == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize("shape", ["linear", "cosine", "1-sqrt"])
@pytest.mark.parametrize(("total", "warmup", "decay"), [(50, 5, 10), (40, 0, 40), (30, 10, 20)])
def test_warm_up_stable_decay_is_that_of_transformers(total, warmup, decay, shape):
    spec = spec_of(
        "warmup_stable_decay",
        warmup_steps=warmup,
        lr_decay_steps=decay,
        lr_decay_shape=shape,
        min_lr_ratio=0.0,
    )
    theirs = _theirs(
        lambda o: transformers.get_wsd_schedule(
            o, warmup, decay, num_training_steps=total, decay_type=shape
        ),
        total,
    )
    assert _rates(spec, total) == pytest.approx(theirs, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize(("mode", "sign"), [("min", 1), ("max", -1)])
@pytest.mark.parametrize(
    ("factor", "patience", "cooldown", "threshold", "least"),
    [(0.5, 0, 0, 1e-4, 0.0), (0.1, 2, 0, 0.05, 0.001), (0.7, 1, 3, 0.01, 0.2)],
)
def test_a_plateau_lowers_the_rate_when_pytorchs_scheduler_does(
    factor, patience, cooldown, threshold, least, mode, sign
):
    spec = spec_of(
        "reduce_lr_on_plateau",
        plateau_factor=factor,
        plateau_patience=patience,
        plateau_cooldown=cooldown,
        plateau_threshold=threshold,
        min_lr_ratio=least,
        warmup_steps=0,
    )
    optimizer = _optimizer()
    theirs = lr_scheduler.ReduceLROnPlateau(
        optimizer,
        mode=mode,
        factor=factor,
        patience=patience,
        cooldown=cooldown,
        threshold=threshold,
        min_lr=least * LR,
    )
    drawn, plateau, lowered = random.Random(5), Plateau(), 0
    for step in range(300):
        value = 4 + sign * (2 * math.exp(-step / 60) + 0.3 * drawn.random())
        lowered += plateau.update(spec, value, higher_is_better=mode == "max")
        theirs.step(value)
        rate = learning_rate(spec, step, 300, plateau.scale)
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        assert (plateau.bad, plateau.cooldown) == (theirs.num_bad_epochs, theirs.cooldown_counter)
    assert lowered > 2


def test_a_negative_metric_that_falls_is_no_improvement():
    """A negative best · (1 + threshold) is lower: PyTorch calls what is slightly worse better."""
    spec = spec_of("reduce_lr_on_plateau", plateau_threshold=0.01, plateau_patience=0)
    plateau = Plateau()
    assert not plateau.update(spec, -1.0, higher_is_better=True)
    assert plateau.update(spec, -1.005, higher_is_better=True)


@pytest.mark.parametrize("name", ["cosine", "linear", "polynomial", "cosine_with_restarts"])
@pytest.mark.parametrize("total", [1, 2, 7, 100])
def test_the_last_step_has_the_final_rate(name, total):
    fields = {"lr_cycles": 1} if name == "cosine_with_restarts" else {}
    spec = TrainSpec(lr=1.0, warmup_ratio=0.0, lr_scheduler=name, min_lr_ratio=0.05, **fields)
    assert _rates(spec, total)[-1] == pytest.approx(0.05)


def test_a_constant_schedule_stays_after_warm_up():
    rates = _rates(TrainSpec(lr=3.0, warmup_ratio=0.1, lr_scheduler="constant"), 20)
    assert rates[0] == pytest.approx(1.5)
    assert set(rates[2:]) == {3.0}


@pytest.mark.parametrize("name", [*SCHEDULES])
@pytest.mark.parametrize("total", [1, 2, 3, 17, 250])
def test_every_rate_of_every_schedule_is_positive_or_zero_and_at_most_the_peak(name, total):
    rates = _rates(spec_of(name), total)
    assert all(0.0 <= rate <= LR * (1 + 1e-12) for rate in rates)


def test_steps_of_warm_up_come_before_their_share():
    assert warmup_steps(TrainSpec(warmup_steps=0, warmup_ratio=0.5), 100) == 0
    assert warmup_steps(TrainSpec(warmup_steps=13), 100) == 13
    assert warmup_steps(TrainSpec(warmup_ratio=0.5), 101) == 51


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"warmup_steps": 101}, r"train\.warmup_steps 101 is more than the 100 steps of the run"),
        (
            {"lr_scheduler": "warmup_stable_decay", "warmup_steps": 50, "lr_decay_steps": 60},
            "50 steps of warm-up and 60 of decay are more than the 100 steps of the run",
        ),
        (
            {"lr_scheduler": "cosine_with_restarts", "lr_cycles": 96},
            r"train\.lr_cycles 96 is more than the 95 steps after warm-up, in a run of 100",
        ),
    ],
)
def test_a_schedule_longer_than_the_run_is_refused(fields, message):
    with pytest.raises(RecipeError, match=message):
        require_schedule_fits(TrainSpec(**fields), 100)


def test_a_schedule_as_long_as_the_run_is_not_refused():
    require_schedule_fits(TrainSpec(warmup_steps=100), 100)
    fields = {"lr_scheduler": "warmup_stable_decay", "warmup_steps": 40, "lr_decay_steps": 60}
    require_schedule_fits(TrainSpec(**fields), 100)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"lr_scheduler": "cosin"}, "did you mean 'cosine'"),
        ({"lr_scheduler": "reduce_on_plateau"}, "did you mean 'reduce_lr_on_plateau'"),
        ({"lr_scheduler": "wsd"}, "is in Etude train.lr_scheduler: warmup_stable_decay"),
        ({"lr_scheduler": "constant_with_warmup"}, "is in Etude train.lr_scheduler: constant"),
        ({"lr_scheduler": "OneCycleLR"}, "is in Etude train.lr_scheduler: one_cycle"),
        ({"lr_scheduler": "reduce_lr_on_plateau"}, "reduce_lr_on_plateau needs train.eval_every"),
        ({"lr_cycles": 3}, "train.lr_cycles is for train.lr_scheduler: cosine_with_restarts"),
        (
            {"lr_scheduler": "warmup_stable_decay", "warmup_ratio": 0.6, "lr_decay_ratio": 0.5},
            "are together more than the run",
        ),
        ({"num_warmup_steps": 3}, "in Etude it is train.warmup_steps"),
    ],
)
def test_what_is_wrong_with_a_schedule_is_one_clear_line(train, message):
    with pytest.raises(RecipeError) as caught:
        Recipe.parse({"train": train})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
