"""The queue of training jobs, with real processes killed: job, owner of the queue, both."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from etude.app.jobs import (
    MOST_LAUNCHES,
    QUEUE_LOCK,
    add_job,
    add_search,
    advance,
    log_tail,
    plan_clone,
    remove_job,
    resume_job,
    stop_job,
)
from etude.app.run_queue import read_queue, set_at_once
from etude.app.run_series import read_series
from etude.app.runs import facts_of, list_facts
from etude.app.search import PlannedSearch
from etude.app.tune import PlannedRun
from etude.core.errors import RunError
from etude.core.lock import FileLock
from etude.tuning.config.recipe import Recipe
from etude.tuning.runs.folder import RunFolder
from etude.tuning.runs.process import Heartbeat, is_process, send, signature
from etude.tuning.search.record import SearchRecord
from etude.tuning.search.space import space_of

pytestmark = pytest.mark.integration

ENDLESS = 1_000_000


@pytest.fixture(scope="module")
def fields(tiny_llama, tmp_path_factory):
    """Recipe fields of a run on a tiny model; each step takes some ten milliseconds."""
    data = tmp_path_factory.mktemp("data") / "rows.jsonl"
    rows = [{"prompt": f"open {n}", "completion": f"Close {n}."} for n in range(24)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return {
        "name": "tiny",
        "model": {"id": str(tiny_llama(layers=1)), "dtype": "float32"},
        "adapter": {"rank": 2, "dropout": 0.1},
        "quant": {"kind": "nf4"},
        "data": {"train": str(data), "eval_fraction": 0.3, "max_length": 64},
        "train": {"batch_samples": 4, "micro_tokens": 128, "threads": 1, "save_every": 5},
        "eval": {"generate": 0},
    }


@pytest.fixture
def planned(fields):
    """A factory of planned runs of that many steps."""

    def plan(steps: int = 2, **train) -> PlannedRun:
        changed = {**fields["train"], "max_steps": steps, "epochs": steps, **train}
        return PlannedRun(Recipe.parse({**fields, "train": changed}))

    return plan


@pytest.fixture
def base(tmp_path):
    """A base folder; what still works in it when the test ends is killed."""
    folder = tmp_path / "runs"
    yield folder
    for run in read_queue(folder).active if folder.exists() else []:
        send(run.state_record(), signal.SIGKILL)


def begun(base: Path) -> None:
    """Return when no process is being started: each holds the lock until it works on its run."""
    with FileLock(base / QUEUE_LOCK, wait=True):
        pass


def wait_for_end(pid: int) -> None:
    """Return when a process has ended, whoever's child it is."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ready, _, _ = select.select([process], [], [], 300)
    os.close(process)
    assert ready, f"process {pid} does not end"


def until(condition, what: str, run: RunFolder) -> None:
    """Wait for something that a process writes to a file."""
    end = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < end, f"{what}: {run.state}; {log_tail(run)}"
        time.sleep(0.01)


def wait_for_step(run: RunFolder, step: int) -> list[dict]:
    until(lambda: len(run.read_metrics()) >= step, f"step {step}", run)
    return run.read_metrics()


OWNER = """
    import sys, time
    from pathlib import Path
    from etude.app.jobs import add_job, advance
    from etude.app.tune import PlannedRun
    from etude.tuning.config.recipe import Recipe
    base = Path(sys.argv[1])
    for file in sys.argv[2:]:
        add_job(PlannedRun(Recipe.read(file)), base)
    advance(base)
    print("ready", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def owner(tmp_path, base, planned):
    """A factory of processes that queue runs and start the first, as a server or a terminal."""
    made = []

    def make(*steps: int) -> subprocess.Popen[str]:
        files = []
        for number, count in enumerate(steps):
            file = tmp_path / f"recipe-{number}.yaml"
            recipe = planned(count).recipe
            file.write_text(recipe.model_copy(update={"name": f"job{number}"}).to_yaml(), "utf-8")
            files.append(str(file))
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(OWNER), str(base), *files],
            stdout=subprocess.PIPE,
            text=True,
        )
        made.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield make
    for process in made:
        process.kill()
        process.communicate()


def named(base: Path, name: str) -> RunFolder:
    (path,) = base.glob(f"{name}-*")
    return RunFolder.open(path)


def test_queued_runs_go_on_by_themselves_when_their_owner_is_killed(base, owner):
    process = owner(3, 2)
    process.kill()
    process.wait()
    begun(base)
    first, second = named(base, "job0"), named(base, "job1")
    assert first.state in ("starting", "running")
    assert second.state == "queued"
    fact = facts_of(second, read_queue(base))
    assert fact.place == 1 and first.name in fact.detail and fact.next_step
    assert is_process(first.state_record())
    wait_for_end(first.state_record()["pid"])
    # The process of the first has started that of the second before it ended.
    begun(base)
    wait_for_end(second.state_record()["pid"])
    assert [fact.state for fact in list_facts(base)] == ["finished", "finished"], log_tail(second)
    assert [len(run.read_metrics()) for run in (first, second)] == [3, 2]
    assert read_queue(base).active == read_queue(base).waiting == []
    assert "finished" in log_tail(first)


def losses(records) -> dict[int, float]:
    return {record["step"]: record["loss"] for record in records if "loss" in record}


def test_job_and_owner_killed_in_mid_run_show_the_same_curve_after_it_is_resumed(base, owner):
    process = owner(ENDLESS, 1)
    begun(base)
    run, waiting = named(base, "job0"), named(base, "job1")
    seen = read_series(run)
    wait_for_step(run, 8)
    seen = read_series(run, seen.cursor)
    before = wait_for_step(run, 12)
    process.kill()
    assert send(run.state_record(), signal.SIGKILL)
    process.wait()
    wait_for_end(run.state_record()["pid"])
    recorded = run.read_metrics()
    assert losses(before).items() <= losses(recorded).items()

    fact = facts_of(run, read_queue(base))
    assert fact.state == "killed"
    assert "killed" in fact.detail and "goes on from step" in fact.next_step
    # Nobody was left to start the second; any reader does.
    assert waiting.state == "queued"
    started = advance(base)
    assert started is not None and started.name == waiting.name
    begun(base)
    resume_job(run.name, base)
    assert facts_of(run, read_queue(base)).place == 1
    wait_for_end(waiting.state_record()["pid"])
    begun(base)
    assert run.state in ("starting", "running"), log_tail(run)

    last = max(losses(recorded))
    until(lambda: max(losses(run.read_metrics()), default=0) > last + 3, "resumed", run)
    after = run.read_metrics()
    # The process that was killed and the one that resumed computed the same numbers.
    assert {s: loss for s, loss in losses(after).items() if s <= last} == losses(recorded)
    steps = [record["step"] for record in after if "loss" in record]
    assert steps == list(range(1, len(steps) + 1)), "a gap, or a step twice"

    stop_job(run.name, base)
    assert run.state in ("stopping", "stopped")
    wait_for_end(run.state_record()["pid"])
    fact = facts_of(run)
    assert fact.state == "stopped" and fact.steps
    assert f"goes on from step {fact.steps}" in fact.next_step

    # A page that had read up to step 8 is told to begin anew, as records after it were rewritten;
    # one that reads on from there gets each step once.
    shown = read_series(run, seen.cursor, limit=10**6)
    drawn = seen.points["loss"].steps if not shown.reset else []
    assert drawn + shown.points["loss"].steps == list(range(1, fact.steps + 1))


def test_a_search_is_a_job_that_is_stopped_and_resumed_with_other_trials(base, fields):
    ranges = {"lr": {"low": 1e-4, "high": 1e-1, "log": True, "default": 1e-3}}
    train = {**fields["train"], "max_steps": 2, "epochs": 2, **ranges}
    space = space_of(
        {**fields, "train": train, "search": {"trials": 500, "halving": False}}, "the form"
    )
    search = add_search(PlannedSearch(space), base)
    assert search.state == "queued" and search.is_search
    other = add_search(PlannedSearch(space), base)
    assert [run.name for run in read_queue(base).waiting] == [search.name, other.name]
    stop_job(other.name, base)
    assert other.state == "stopped"

    assert advance(base).path == search.path
    begun(base)

    def trials():
        record = SearchRecord.read(search)
        return [trial.state for trial in record.trials] if record else []

    until(lambda: trials().count("finished") >= 2, "two trials", search)
    assert not stop_job(search.name, base).from_queue
    wait_for_end(search.state_record()["pid"])
    assert search.state == "stopped", log_tail(search)
    record = SearchRecord.read(search)
    assert record is not None
    finished = [trial for trial in record.trials if trial.state == "finished"]

    resume_job(search.name, base, search={"trials": record.begun + 1})
    assert search.state == "queued"
    advance(base)
    begun(base)
    wait_for_end(search.state_record()["pid"])
    assert search.state == "finished", log_tail(search)
    after = SearchRecord.read(search)
    assert after is not None and after.begun == record.begun + 1
    assert after.trials[: len(finished)] == finished, "nothing is trained twice"
    assert "trials" in search.read_json("summary.json")["search"]


def test_a_job_is_stopped_while_it_starts_and_is_resumed_longer_after_it_finished(base, planned):
    run = add_job(planned(2), base)
    assert advance(base).path == run.path
    begun(base)
    assert run.state == "starting"
    asked = stop_job(run.name, base)
    assert not asked.from_queue and run.state in ("stopping", "stopped")
    wait_for_end(run.state_record()["pid"])
    fact = facts_of(run)
    assert (fact.state, fact.steps) == ("stopped", 0), log_tail(run)
    assert "before training began" in fact.detail or "interrupted" in fact.detail
    with pytest.raises(RunError, match="is not running: it is stopped"):
        stop_job(run.name, base)

    resume_job(run.name, base)
    advance(base)
    begun(base)
    wait_for_end(run.state_record()["pid"])
    assert run.state == "finished", log_tail(run)
    resume_job(run.name, base, ["train.max_steps=4", "train.epochs=4"])
    assert run.state == "queued"
    assert stop_job(run.name, base).from_queue
    assert run.state == "finished", "what it was before it was queued"
    resume_job(run.name, base, ["train.max_steps=4", "train.epochs=4"])
    advance(base)
    begun(base)
    wait_for_end(run.state_record()["pid"])
    assert run.state == "finished" and len(run.read_metrics()) == 4, log_tail(run)


def test_a_queued_run_leaves_the_queue_and_frees_its_space(base, planned):
    first, second = add_job(planned(), base), add_job(planned(), base)
    assert [run.name for run in read_queue(base).waiting] == [first.name, second.name]
    assert stop_job(first.name, base).from_queue
    fact = facts_of(first)
    assert fact.state == "stopped" and "before it began" in fact.detail and fact.next_step
    assert [run.name for run in read_queue(base).waiting] == [second.name]
    assert remove_job(second.name, base) > 0
    assert read_queue(base).waiting == [] and not second.path.exists()
    resume_job(first.name, base)
    assert [run.name for run in read_queue(base).waiting] == [first.name]


def test_a_clone_has_the_changes_and_nothing_else(base, planned):
    run = add_job(planned(7), base)
    plan = plan_clone(run.name, base, ["adapter.rank=3"])
    clone = add_job(plan, base)
    original, changed = Recipe.read_run(run.recipe), Recipe.read_run(clone.recipe)
    adapter = original.adapter.model_copy(update={"rank": 3})
    assert changed == original.model_copy(update={"adapter": adapter})


def test_a_job_whose_processes_end_before_they_begin_fails_and_the_next_begins(
    base, planned, monkeypatch, tmp_path
):
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho cannot work >&2\n")
    program.chmod(0o755)
    bad, good = add_job(planned(), base), add_job(planned(1), base)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", str(program))
        for _ in range(MOST_LAUNCHES):
            assert advance(base).path == bad.path
            begun(base)
            assert bad.state == "queued"
    assert advance(base).path == good.path
    begun(base)
    fact = facts_of(bad)
    assert fact.state == "failed" and "before it began" in fact.detail
    assert log_tail(bad).count("cannot work") == MOST_LAUNCHES
    wait_for_end(good.state_record()["pid"])
    assert good.state == "finished", log_tail(good)


def test_a_job_that_fails_is_kept_with_its_reason(base, planned, fields, tmp_path):
    gone = {**fields, "model": {"id": str(tmp_path / "gone"), "dtype": "float32"}}
    run = add_job(PlannedRun(Recipe.parse(gone)), base)
    advance(base)
    begun(base)
    wait_for_end(run.state_record()["pid"])
    fact = facts_of(run)
    assert fact.state == "failed" and "gone" in fact.detail and fact.next_step
    assert fact.detail in " ".join(log_tail(run).split())


def test_a_disk_that_fills_up_in_mid_run_is_said_and_the_run_goes_on_when_there_is_space(
    disk, planned
):
    base = disk.place / "runs"
    run = add_job(planned(ENDLESS), base)
    advance(base)
    begun(base)
    wait_for_step(run, 8)
    disk.fill()
    wait_for_end(run.state_record()["pid"])
    fact = facts_of(run)
    assert fact.state == "failed" and "the disk is full" in fact.detail, log_tail(run)
    assert "free some space" in fact.next_step and "from step" in fact.next_step
    recorded = losses(run.read_metrics())
    disk.free()
    resume_job(run.name, base)
    advance(base)
    begun(base)
    until(
        lambda: (
            run.state not in ("starting", "running")
            or max(losses(run.read_metrics()), default=0) > max(recorded)
        ),
        "resumed",
        run,
    )
    assert run.state == "running", log_tail(run)
    again = losses(run.read_metrics())
    assert recorded.items() <= again.items()
    assert list(again) == list(range(1, len(again) + 1))
    send(run.state_record(), signal.SIGKILL)
    wait_for_end(run.state_record()["pid"])


def test_two_runs_train_at_once_where_that_is_set(base, planned):
    set_at_once(2, base)
    first, second = add_job(planned(ENDLESS), base), add_job(planned(ENDLESS), base)
    third = add_job(planned(), base)
    assert advance(base).path == first.path
    begun(base)
    # The first process starts the second when it has begun.
    until(lambda: second.state in ("starting", "running"), "the second", second)
    assert advance(base) is None and third.state == "queued"
    for run in (first, second):
        send(run.state_record(), signal.SIGKILL)
        wait_for_end(run.state_record()["pid"])
    assert [run.state for run in (first, second)] == ["killed", "killed"]


def test_a_process_id_that_another_program_has_now_is_not_taken_for_the_run(base, planned):
    run = add_job(planned(), base)
    with run:
        run.set_state("running")
        assert run.state == "running"
        record = run.state_record()
        # The run's process was killed, and its id went to this one, which looks at the run.
        run.write_json("state.json", {**record, "started": "another-start:1"})
        assert run.state == "killed"
        assert not is_process(run.state_record())
        assert not send(run.state_record(), signal.SIGKILL)
        with pytest.raises(RunError, match="not running"):
            stop_job(run.name, base)
        # The machine was started anew: ids begin again.
        assert "started anew" in facts_of(run).detail
    # A version that recorded no start.
    run.write_json("state.json", {k: record[k] for k in ("state", "detail", "pid", "began")})
    assert run.state == "killed", "no process holds the lock"
    with run:
        assert run.state == "running"


@pytest.mark.parametrize("hours", [9, -9], ids=["asleep", "clock set back"])
def test_a_machine_that_was_asleep_does_not_lose_its_run(base, planned, hours):
    run = add_job(planned(), base)
    with run:
        run.set_state("running")
        with Heartbeat(run.heartbeat):
            then = time.time() - hours * 3600
            os.utime(run.heartbeat, (then, then))
            fact = facts_of(run)
    assert fact.state == "running"
    assert fact.silent_seconds >= 0
    assert ("no sign of life" in fact.detail) == (hours > 0)


DAMAGE = {
    "state": ("state.json", "{"),
    "state of another kind": ("state.json", '["running"]'),
    "summary": ("summary.json", '"a text"'),
    "metrics": ("metrics.jsonl", '{"step": "many"}\n'),
    "no json": ("metrics.jsonl", "\0\0\0\n"),
    "recipe": ("recipe.yaml", "- : ["),
    "job": ("job.json", "[1"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_corrupt_run_is_one_broken_entry(base, planned, what):
    good, bad = add_job(planned(), base), add_job(planned(), base)
    bad.write_text("state.json", good.path.joinpath("state.json").read_text("utf-8"))
    name, content = DAMAGE[what]
    (bad.path / name).write_text(content, "utf-8")
    listed = {fact.name: fact for fact in list_facts(base)}
    assert listed[good.name].damaged is None and listed[good.name].place
    broken = listed[bad.name]
    assert json.dumps(broken.as_json())
    assert broken.damaged or what in ("recipe", "job")
    assert broken.next_step
    assert read_queue(base).waiting


def test_signature_names_one_process():
    own = signature()
    assert is_process(own)
    assert not is_process({**own, "host": "elsewhere"})
    child = subprocess.Popen(["true"])
    wait_for_end(child.pid)
    # It has ended, but its parent has not collected it yet.
    assert not is_process({**own, "pid": child.pid, "started": None})
    child.wait()
