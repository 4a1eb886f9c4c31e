"""The journal survives kills and power cuts; the same search draws the same trials."""

from __future__ import annotations

import json

import pytest
from optuna.trial import TrialState

from etude.tuning.search.ranges import Range
from etude.tuning.search.settings import SearchSettings
from etude.tuning.search.storage import JOURNAL, READY, note, open_study, report

SETTINGS = SearchSettings()


def _ask(study, value=None):
    trial = study.ask()
    trial.suggest_float("train.lr", 1e-5, 1e-3, log=True)
    trial.set_user_attr(READY, True)
    if value is not None:
        study.tell(trial.number, [value])
    return trial


@pytest.mark.parametrize("cut", [1, 7, 25])
def test_a_torn_last_line_costs_one_record_and_nothing_after_it(tmp_path, cut):
    study = open_study(tmp_path, SETTINGS, ["minimize"])
    _ask(study, 1.0)
    _ask(study, 2.0)
    file = tmp_path / JOURNAL
    content = file.read_bytes()
    file.write_bytes(content[:-cut])

    study = open_study(tmp_path, SETTINGS, ["minimize"])
    states = [trial.state for trial in study.get_trials()]
    assert states == [TrialState.COMPLETE, TrialState.RUNNING]
    study.tell(1, [2.5])
    _ask(study, 3.0)
    again = open_study(tmp_path, SETTINGS, ["minimize"])
    assert [trial.value for trial in again.get_trials()] == [1.0, 2.5, 3.0]
    assert all(json.loads(line) for line in file.read_text().splitlines())


def test_the_lock_of_a_killed_process_is_not_waited_for(tmp_path):
    open_study(tmp_path, SETTINGS, ["minimize"])
    (tmp_path / f"{JOURNAL}.lock").symlink_to(tmp_path / JOURNAL)
    _ask(open_study(tmp_path, SETTINGS, ["minimize"]), 1.0)
    assert not (tmp_path / f"{JOURNAL}.lock").is_symlink()


def test_a_trial_killed_while_it_was_drawn_fails_and_one_at_work_stays(tmp_path):
    study = open_study(tmp_path, SETTINGS, ["minimize"])
    study.ask().suggest_float("train.lr", 1e-5, 1e-3, log=True)
    _ask(study)
    report(study, 1, 11, 0.5)
    note(study, 1, "trial", {"number": 1})

    again = open_study(tmp_path, SETTINGS, ["minimize"]).get_trials()
    assert [trial.state for trial in again] == [TrialState.FAIL, TrialState.RUNNING]
    assert again[1].intermediate_values == {11: 0.5}
    assert again[1].user_attrs["trial"] == {"number": 1}


@pytest.mark.parametrize(
    "one",
    [
        Range("train.lr", 1e-5, 1e-3, log=True),
        Range("adapter.rank", 4, 64, whole=True, log=True),
        Range("train.warmup_ratio", 0.0, 0.1, step=0.05),
        Range("adapter.target_modules", choices=("all-linear", ["q_proj", "v_proj"], None)),
    ],
)
def test_what_is_drawn_is_in_the_range_and_fits_its_distribution(tmp_path, one):
    import optuna

    study = open_study(tmp_path, SETTINGS, ["minimize"])
    value = one.suggest(study.ask())
    assert one.contains(value)
    made = optuna.trial.create_trial(
        params={one.key: one.stored(value)}, distributions={one.key: one.distribution()}, value=1.0
    )
    study.add_trial(made)
    assert study.get_trials()[1].params == study.get_trials()[0].params
