"""What becomes of a trial that cannot be trained, said by the process that would train it."""

from __future__ import annotations

from multiprocessing import Pipe

import pytest

from etude.tuning.runs.folder import list_runs
from etude.tuning.search.worker import Job, _train


@pytest.fixture
def job(tiny_recipe, tmp_path):
    def made(**sections):
        recipe = tiny_recipe(**sections)
        return Job(recipe, str(tmp_path / "runs"), run="", shares=(1.0,), until=1.0)

    return made


def outcome_of(job):
    ours, theirs = Pipe()
    with ours, theirs:
        return _train(job, theirs)


def test_a_trial_that_does_not_fit_is_left_out_before_it_is_loaded(job, tmp_path, monkeypatch):
    monkeypatch.setattr("etude.tuning.preparation.memory_at_hand", lambda *_: 1_000_000)
    outcome = outcome_of(job())
    assert outcome.state == "no_memory" and "memory" in outcome.reason
    assert list_runs(tmp_path / "runs") == []


@pytest.mark.parametrize(
    ("sections", "state", "said"),
    [
        ({"adapter": {"rank": 50_000_000}}, "skipped", "too large"),
        ({"model": {"id": "no-such-model"}}, "failed", "no-such-model"),
    ],
)
def test_what_is_impossible_is_told_from_what_failed(job, sections, state, said):
    outcome = outcome_of(job(**sections))
    assert outcome.state == state and said in outcome.reason and not outcome.disk_full
