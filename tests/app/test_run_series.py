"""Curves read from a growing metrics.jsonl: nothing left out, nothing twice, spikes kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.app.run_news import MetricsTail
from etude.app.run_series import TAIL, read_series
from etude.core.errors import RunError
from etude.tuning.runs.folder import RunFolder


def step(number: int, **more) -> dict:
    return {"step": number, "total_steps": 5000, "loss": 3 - number / 5000, "lr": 1e-3, **more}


@pytest.fixture
def run(tmp_path):
    with RunFolder.create("curves", tmp_path) as folder:
        yield folder


def test_a_run_without_metrics_has_no_points(run):
    seen = read_series(run)
    assert seen.points == {} and seen.step == 0 and seen.seconds_left is None
    assert read_series(run, seen.cursor).points == {}


def test_each_read_returns_what_was_added_since(run):
    cursor, steps = None, []
    for first in range(1, 40, 13):
        for number in range(first, first + 13):
            run.append_metrics(step(number, seconds=number * 2.0))
            if number % 10 == 0:
                run.append_metrics({"step": number, "eval_loss": 2.0})
        seen = read_series(run, cursor)
        assert seen.reset == (cursor is None)
        cursor = seen.cursor
        steps += seen.points["loss"].steps
    assert steps == list(range(1, 40))
    assert (seen.step, seen.total_steps, seen.seconds) == (39, 5000, 78.0)
    assert seen.seconds_left == pytest.approx((5000 - 39) * 2.0)
    whole = read_series(run)
    assert whole.points["eval_loss"].steps == [10, 20, 30]
    assert whole.cursor == cursor
    assert read_series(run, cursor).points == {}


def test_a_line_that_is_being_written_is_read_when_it_is_whole(run):
    run.append_metrics(step(1))
    seen = read_series(run)
    with run.metrics.open("ab") as metrics:
        metrics.write(b'{"step": 2, "lo')
        metrics.flush()
        torn = read_series(run, seen.cursor)
        assert torn.points == {} and torn.cursor == seen.cursor and not torn.reset
        assert MetricsTail(run.metrics).position() == seen.cursor
        metrics.write(b'ss": 1.5}\n')
    assert read_series(run, torn.cursor).points["loss"].values == [1.5]


def test_a_resumed_run_that_wrote_records_anew_is_read_from_the_beginning(run):
    for number in range(1, 11):
        run.append_metrics(step(number, tokens_per_s=100.0))
    seen = read_series(run)
    run.truncate_metrics(6)
    assert read_series(run, seen.cursor).reset, "shorter than it was"
    for number in range(7, 13):
        run.append_metrics(step(number, tokens_per_s=222.5))
    again = read_series(run, seen.cursor)
    assert again.reset and again.points["loss"].steps == list(range(1, 13))


@pytest.mark.parametrize("cursor", ["", "x", "99999999-00000000", "5-00000000", "-1-0", "١-0"])
def test_a_cursor_of_something_else_begins_anew(run, cursor):
    run.append_metrics(step(1))
    seen = read_series(run, cursor)
    assert seen.reset and seen.points["loss"].steps == [1]


def test_a_long_run_is_thinned_with_its_spikes_and_its_end_exact(run):
    records = [step(number) for number in range(1, 5001)]
    records[1234]["loss"] = 99.0
    records[2345]["loss"] = -99.0
    records[3456]["loss"] = None
    run.write_lines("metrics.jsonl", records)
    loss = read_series(run, limit=1000).points["loss"]
    assert len(loss.steps) <= 1000
    assert loss.steps == sorted(set(loss.steps))
    assert {99.0, -99.0} <= set(loss.values)
    assert loss.steps[0] == 1
    assert loss.steps[-TAIL:] == list(range(5001 - TAIL, 5001))
    by_step = {record["step"]: record["loss"] for record in records}
    assert all(by_step[s] == value for s, value in zip(loss.steps, loss.values, strict=True))


def test_an_evaluation_repeated_after_a_resume_counts_once(run):
    run.append_metrics({"step": 5, "eval_loss": 2.0})
    run.append_metrics({"step": 5, "eval_loss": 1.5})
    assert read_series(run).points["eval_loss"].values == [1.5]


def test_a_damaged_line_is_named(run):
    run.append_metrics(step(1))
    with run.metrics.open("ab") as metrics:
        metrics.write(b"[]\n")
    with pytest.raises(RunError, match="line 2"):
        read_series(run)


@given(data=st.data())
def test_any_history_of_appends_and_resumes_shows_every_step_once(tmp_path_factory, data):
    folder = RunFolder.create("any", tmp_path_factory.mktemp("any"))
    shown: list[int] = []
    values: list[float] = []
    cursor, written, made = None, 0, 0.0
    with folder:
        for _ in range(data.draw(st.integers(1, 12))):
            action = data.draw(st.sampled_from(["append", "read", "resume"]))
            if action == "resume":
                written = data.draw(st.integers(0, written))
                folder.truncate_metrics(written)
            elif action == "append":
                for _ in range(data.draw(st.integers(1, 5))):
                    written, made = written + 1, made + 0.125
                    folder.append_metrics(step(written, seconds=made))
            seen = read_series(folder, cursor)
            if data.draw(st.booleans()):
                continue  # a reader that was away
            cursor = seen.cursor
            points = seen.points.get("loss")
            if seen.reset:
                shown, values = [], []
            if points:
                shown += points.steps
                values += seen.points.get("loss").values
            assert shown == list(range(1, written + 1))


def test_a_list_reads_no_more_than_the_end_of_the_metrics(run, monkeypatch):
    from etude.app import run_news
    from etude.app.runs import facts_of

    for step in range(1, 3001):
        record = {"step": step, "total_steps": 5000, "loss": 1.0, "seconds": step / 2}
        if step % 1000 == 0:
            record["eval_loss"] = step / 1000
        run.append_metrics(record)
    with run.metrics.open("ab") as stream:
        stream.write(b'{"step": 3001, "lo')
    for size in (1, 7, 100, 65_536):
        monkeypatch.setattr(run_news, "_BLOCK", size)
        found = run_news.records_from_end(run.metrics)
        assert [next(found)["step"] for _ in range(3)] == [3000, 2999, 2998]
    facts = facts_of(run)
    assert (facts.steps, facts.total_steps, facts.seconds) == (3000, 5000, 1500.0)
    assert facts.figures["eval_loss"] == 3.0
    monkeypatch.setattr(run_news, "_BLOCK", 1000)
    assert [r["step"] for r in run_news.records_from_end(run.metrics)] == list(range(3000, 0, -1))
    # What is damaged far from the end spoils no list; the run's own page says it.
    content = run.metrics.read_bytes()
    run.metrics.write_bytes(b"\0" * 20 + b"\n" + content)
    assert facts_of(run).steps == 3000
    assert list(run_news.records_from_end(run.path / "none")) == []
