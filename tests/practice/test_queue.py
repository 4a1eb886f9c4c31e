"""The queue in SQLite and in PostgreSQL, with real workers, and processes that are killed."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from etude.core.errors import QueueFullError, StoreError
from etude.practice.judge.verdict import Verdict
from etude.practice.problem import find_problem
from etude.practice.progress import UserProgress
from etude.practice.queue import Queue
from etude.practice.session import recorder, submit
from etude.practice.worker import Workers
from etude.store.engine import open_store

ROOT = Path(__file__).parents[2]


class Clock:
    def __init__(self):
        self.now = 1_000_000.0

    def __call__(self):
        return self.now


def test_submissions_are_taken_in_their_order(engine):
    queue = Queue(engine)
    keys = [queue.add("ada", "x", str(index)) for index in range(5)]
    assert [queue.status(key).position for key in keys] == [0, 1, 2, 3, 4]
    assert [queue.claim("w").key for _ in keys] == keys
    assert queue.claim("w") is None


def test_a_dead_workers_submission_is_the_first_again(engine):
    clock = Clock()
    queue = Queue(engine, clock=clock)
    first, _ = queue.add("ada", "x", "1"), queue.add("ada", "x", "2")
    lost = queue.claim("dead", seconds=60)
    clock.now += 61
    again = queue.claim("alive")
    assert again.key == lost.key == first and again.attempt == 2
    assert not queue.finish(lost, "dead", Verdict("runtime error"))
    assert queue.finish(again, "alive", Verdict("accepted"))
    assert not queue.finish(again, "alive", Verdict("time limit"))
    assert queue.status(first).verdict.kind == "accepted"


def test_what_is_given_back_keeps_its_place(engine):
    queue = Queue(engine)
    keys = [queue.add("ada", "x", "") for _ in range(3)]
    queue.give_back(queue.claim("w"), "w")
    assert queue.claim("w").key == keys[0]


def test_many_workers_never_take_the_same(engine):
    queue = Queue(engine)
    keys = [queue.add("ada", "x", "") for _ in range(120)]
    taken: list[str] = []

    def work(name):
        while ticket := queue.claim(name):
            taken.append(ticket.key)
            assert queue.finish(ticket, name, Verdict("accepted"))

    threads = [threading.Thread(target=work, args=(f"w{index}",)) for index in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(keys) and queue.waiting() == 0


def test_a_full_queue_says_how_many_wait(engine):
    queue = Queue(engine, most_waiting=2)
    queue.add("ada", "x", "")
    queue.add("ada", "x", "")
    with pytest.raises(QueueFullError, match="2 submissions are waiting"):
        queue.add("ada", "x", "")


def test_a_verdict_comes_back_as_it_was(engine, judge, tensor_dataset):
    queue = Queue(engine)
    key = queue.add("ada", tensor_dataset.slug, "")
    verdict = judge.judge(tensor_dataset, tensor_dataset.wrong[1][1])
    queue.finish(queue.claim("w"), "w", verdict)
    assert queue.status(key).verdict == verdict


def test_workers_judge_and_the_record_follows(engine, judge, tensor_dataset):
    queue = Queue(engine)
    keys = [
        queue.add("ada", tensor_dataset.slug, source)
        for source in (tensor_dataset.wrong[1][1], tensor_dataset.solution)
    ]
    with Workers(engine, judge, find_problem, recorder(engine)) as workers:
        workers.wake()
        wait(queue)
    assert [queue.status(key).verdict.name for key in keys] == ["wrong answer: type", "accepted"]
    stats = UserProgress(engine, "ada").stats()
    assert (stats.solved, stats.submissions, stats.streak) == (1, 2, 1)
    assert any(concept.wrong for concept in stats.concepts)


def test_an_unknown_problem_is_a_fault_of_ours_after_three_tries(engine, judge):
    queue = Queue(engine)
    key = queue.add("ada", "no-such-problem", "")
    with Workers(engine, judge, find_problem):
        wait(queue)
    status = queue.status(key)
    assert status.verdict.kind == "system fault" and "no-such-problem" in status.verdict.says
    assert UserProgress(engine, "ada").stats().concepts == []


def wait(queue, seconds=60):
    deadline = time.monotonic() + seconds
    while queue.waiting() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert queue.waiting() == 0


def start_judge(address):
    code = "from etude.cli import main; main()"
    environment = {**os.environ, "ETUDE_DATABASE": address}
    process = subprocess.Popen(
        [sys.executable, "-c", code, "practice", "judge", "--workers", "1"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    for line in process.stdout:
        if "judging" in line:
            return process
    raise AssertionError("the judge did not start")


def test_submissions_survive_a_killed_judge_and_are_judged_once(address, tensor_dataset):
    queue = Queue(open_store(address))
    judge = start_judge(address)
    keys = [queue.add("ada", tensor_dataset.slug, tensor_dataset.solution) for _ in range(40)]
    while sum(queue.status(key).state == "done" for key in keys) < 5:
        time.sleep(0.01)
    judge.send_signal(signal.SIGKILL)
    judge.wait()
    done = {key for key in keys if queue.status(key).state == "done"}
    assert 5 <= len(done) < 40
    before = {key: queue.status(key).verdict for key in done}
    # What the dead worker held is free when its lease is over; here its clock is put forward.
    clock = Clock()
    clock.now = time.time() + 10_000
    late = Queue(queue.engine, clock=clock)
    held = [key for key in keys if queue.status(key).state == "running"]
    # All at once: what is given back is the first again, so one by one the same would be claimed.
    claimed = [late.claim("mender") for _ in held]
    assert sorted(ticket.key for ticket in claimed) == sorted(held)
    for ticket in claimed:
        late.give_back(ticket, "mender", counts=False)
    second = start_judge(address)
    wait(queue)
    second.terminate()
    assert second.wait(30) == 0
    assert all(queue.status(key).verdict.accepted for key in keys)
    assert all(queue.status(key).verdict == verdict for key, verdict in before.items())


def test_submit_uses_a_judge_that_runs_already(address, tensor_dataset):
    engine = open_store(address)
    running = start_judge(address)
    try:
        _, verdict = submit(engine, tensor_dataset, tensor_dataset.solution, "ada")
        assert verdict.accepted
    finally:
        running.terminate()
        running.wait(30)


def test_a_database_that_cannot_be_written_says_so(tmp_path):
    file = tmp_path / "etude.sqlite3"
    file.write_bytes(b"this is no database, and it is long enough to be looked at" * 50)
    with pytest.raises(StoreError, match="cannot be opened"):
        open_store(f"sqlite:///{file}")
    with pytest.raises(StoreError) as error:
        open_store("postgresql+psycopg://etude:secret@127.0.0.1:1/none")
    assert "secret" not in str(error.value)


def test_a_full_disk_takes_no_submission_and_loses_none(tmp_path):
    """A database that may not grow stands for the disk; SQLite reports both alike."""
    engine = open_store(f"sqlite:///{tmp_path / 'etude.sqlite3'}")
    queue = Queue(engine)
    kept = queue.add("ada", "x", "small")
    with engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        connection.commit()
        connection.detach()
    from sqlalchemy import event

    def limit(dbapi, _):
        dbapi.execute(f"PRAGMA max_page_count = {pages}")

    event.listen(engine, "connect", limit)
    engine.dispose()
    with pytest.raises(Exception, match="full"):
        queue.add("ada", "x", "x" * 1_000_000)
    assert queue.status(kept).state == "queued" and queue.waiting() == 1
    event.remove(engine, "connect", limit)
    engine.dispose()
    assert queue.claim("w").key == kept
