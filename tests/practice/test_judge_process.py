"""A judge that is started when it is needed: it answers, ends when idle, and may be killed."""

import os
import signal
import sys
import textwrap
import time

import pytest

from etude.practice.judge.verdict import Verdict
from etude.practice.judge_process import JudgeProcess, announced, running_judges
from etude.practice.queue import Queue
from etude.practice.worker import workers_of
from etude.store.engine import open_store


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("ETUDE_HOME", str(tmp_path))
    monkeypatch.setenv("ETUDE_DATABASE", f"sqlite:///{tmp_path / 'etude.sqlite3'}")
    engine = open_store()
    yield engine
    engine.dispose()


@pytest.fixture
def processes():
    started = []
    yield started
    for one in started:
        one.close()


def wait_for(condition):
    """Look again and again, without any limit but the test's own."""
    while not condition():
        time.sleep(0.02)


def until(queue, key, state="done"):
    wait_for(lambda: queue.status(key).state == state)
    return queue.status(key).verdict


def test_a_judge_starts_judges_and_ends_when_it_is_idle(store, tensor_dataset, processes):
    judge = JudgeProcess(store, idle_seconds=1)
    processes.append(judge)
    queue = Queue(store)
    right = queue.add("ada", tensor_dataset.slug, tensor_dataset.solution)
    visible = queue.add("ada", tensor_dataset.slug, tensor_dataset.solution, visible_only=True)
    judge.want()
    pid = judge.pid
    judge.want()
    assert judge.pid == pid
    assert until(queue, right).accepted
    verdict = until(queue, visible)
    assert (verdict.accepted, verdict.total) == (True, 2)
    (found,) = running_judges()
    assert (found.pid, found.slots) == (pid, 2)
    assert "seccomp" in found.isolation
    wait_for(lambda: judge.pid is None)
    assert judge.failure == ""
    assert running_judges() == []


def test_a_submission_whose_judge_is_killed_is_judged_once(store, tensor_dataset, processes):
    judge = JudgeProcess(store)
    processes.append(judge)
    queue = Queue(store)
    slow = tensor_dataset.solution + "\nimport time\ntime.sleep(3)\n"
    key = queue.add("ada", tensor_dataset.slug, slow)
    judge.want()
    until(queue, key, "running")
    first = judge.pid
    os.kill(first, signal.SIGKILL)
    verdict = until(queue, key)
    assert verdict.accepted
    assert judge.pid != first
    assert judge.failure == ""


def test_what_a_dead_process_had_claimed_is_first_again_and_nobody_elses_is(store):
    queue = Queue(store)
    keys = [queue.add("ada", "x", str(index)) for index in range(3)]
    queue.claim(workers_of(7) + "abc-0")
    other = queue.claim(workers_of(77) + "abc-0")
    assert queue.give_back_all(workers_of(7)) == 1
    assert [queue.status(key).state for key in keys] == ["queued", "running", "queued"]
    again = queue.claim("w")
    assert (again.key, again.attempt) == (keys[0], 2)
    assert queue.finish(other, workers_of(77) + "abc-0", Verdict("accepted"))


def test_a_judge_that_cannot_start_says_why_and_is_not_started_again_and_again(store, tmp_path):
    program = tmp_path / "judge.py"
    program.write_text(
        textwrap.dedent(
            f"""
            open({str(tmp_path / "starts")!r}, "a").write("x")
            raise SystemExit("error: no landlock here")
            """
        )
    )
    judge = JudgeProcess(store, command=[sys.executable, str(program)])
    queue = Queue(store)
    key = queue.add("ada", "x", "")
    judge.want()
    wait_for(lambda: judge.pid is None)
    assert judge.failure == "error: no landlock here"
    judge.want(again=False)
    assert judge.pid is None
    assert queue.status(key).state == "queued"
    judge.want()
    wait_for(lambda: judge.pid is None)
    assert (tmp_path / "starts").read_text() == "xx"


def test_a_judge_that_is_killed_before_it_judges_is_not_started_for_ever(store, tmp_path):
    program = tmp_path / "judge.py"
    program.write_text(
        f"import os\nopen({str(tmp_path / 'starts')!r}, 'a').write('x')\nos.kill(os.getpid(), 9)\n"
    )
    judge = JudgeProcess(store, command=[sys.executable, str(program)])
    Queue(store).add("ada", "x", "")
    judge.want()
    wait_for(lambda: judge.failure)
    assert "killed 3 times" in judge.failure
    assert (tmp_path / "starts").read_text() == "xxx"


def test_a_judge_of_another_database_is_no_judge_here(store, monkeypatch):
    with announced(2, "limits"):
        assert [one.pid for one in running_judges()] == [os.getpid()]
        monkeypatch.setenv("ETUDE_DATABASE", "sqlite:////elsewhere.sqlite3")
        assert running_judges() == []
    assert running_judges() == []
