"""Successive halving, followed from the trials alone."""

from __future__ import annotations

from dataclasses import replace
from operator import lt

import pytest

from etude.tuning.search.halving import Begin, Drop, next_action
from etude.tuning.search.settings import SearchSettings
from etude.tuning.search.trial import Trial, percent


def _follow(settings, values, *, failing=(), skipped=()):
    """Do what is said until nothing is left; `values[n]` is the loss of trial n at any length."""
    trials: list[Trial] = []
    trained: list[tuple[int, float]] = []
    while (action := next_action(trials, settings, lt)) is not None:
        if isinstance(action, Begin):
            number = len(trials)
            state = "skipped" if number in skipped else "running"
            trials.append(Trial(number, {}, state, action.bracket))
            continue
        trial = trials[action.number]
        if isinstance(action, Drop):
            trials[action.number] = replace(trial, state="dropped")
            continue
        trained.append((action.number, action.until - trial.share))
        if action.number in failing:
            trials[action.number] = replace(trial, state="failed")
        elif action.until == 1.0:
            value = values[action.number]
            trials[action.number] = replace(trial, state="finished", objectives=[value])
        else:
            rungs = {**trial.rungs, str(percent(action.until)): values[action.number]}
            trials[action.number] = replace(trial, state="paused", rungs=rungs)
    return trials, trained


def test_a_bracket_of_nine_trains_one_in_full_at_the_cost_of_two_and_a_third():
    values = [5.0, 4, 3, 9, 8, 1, 2, 7, 6, 10]
    trials, trained = _follow(SearchSettings(trials=10), values)
    finished = [trial.number for trial in trials if trial.state == "finished"]
    assert finished == [0, 5]
    reached = [trial.number for trial in trials if "33" in trial.rungs]
    assert reached == [2, 5, 6]  # the three best of nine
    # 1 for the default; 9/9 + 3 (1/3 − 1/9) + 2/3, of shares rounded to percent.
    assert sum(share for _, share in trained) == pytest.approx(1 + 7 / 3, abs=0.02)


def test_the_last_bracket_may_be_smaller_and_still_trains_its_best_in_full():
    trials, _ = _follow(SearchSettings(trials=5), [5.0, 4, 1, 2, 3])
    assert [t.number for t in trials if t.state == "finished"] == [0, 2]
    assert [t.state for t in trials if t.number in (1, 3, 4)] == ["dropped"] * 3


def test_of_equal_values_the_first_goes_on():
    trials, _ = _follow(SearchSettings(trials=10), [1.0] * 10)
    assert [t.number for t in trials if t.state == "finished"] == [0, 1]


def test_trials_that_break_down_count_and_impossible_ones_do_not():
    settings = SearchSettings(trials=10)
    trials, _ = _follow(settings, [float(n) for n in range(30)], failing={1, 2}, skipped={4, 5})
    assert len(trials) == 12
    assert [t.number for t in trials if t.state == "finished"] == [0, 3]


def test_without_halving_every_trial_is_trained_in_full():
    settings = SearchSettings(trials=4, halving=False)
    trials, trained = _follow(settings, [4.0, 3, 2, 1])
    assert [t.state for t in trials] == ["finished"] * 4
    assert trained == [(0, 1.0), (1, 1.0), (2, 1.0), (3, 1.0)]


def test_a_trial_that_was_at_work_goes_on_to_the_rung_it_was_going_to():
    trials = [
        Trial(0, {}, "finished", 0, objectives=[1.0]),
        Trial(1, {}, "running", 1, rungs={"11": 2.0}),
    ]
    action = next_action(trials, SearchSettings(trials=3), lt)
    assert action is not None
    assert (action.number, action.until) == (1, pytest.approx(1 / 3))
