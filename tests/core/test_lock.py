import os
import subprocess
import sys
import threading

import pytest

from etude.core.errors import LockHeldError
from etude.core.lock import FileLock

HOLD = """
import sys
from pathlib import Path
from etude.core.lock import FileLock
with FileLock(Path(sys.argv[1])):
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "lock"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.wait()


def test_another_process_is_refused_and_learns_the_holder(tmp_path, holder):
    lock = FileLock(tmp_path / "lock")
    assert lock.is_held()
    with pytest.raises(LockHeldError, match=f"locked by process {holder.pid};") as caught:
        lock.acquire()
    assert caught.value.pid == holder.pid


def test_a_killed_process_holds_nothing(tmp_path, holder):
    holder.kill()
    holder.wait()
    lock = FileLock(tmp_path / "lock")
    assert not lock.is_held()
    with lock:
        assert lock.is_held()
    assert not lock.is_held()


def test_whoever_waits_says_so_once_and_gets_it(tmp_path, holder):
    told = []

    def waiting():
        told.append(True)
        holder.stdin.close()

    with FileLock(tmp_path / "lock", wait=True, waiting=waiting):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"
    assert told == [True]


def test_nobody_is_told_of_a_wait_where_the_lock_is_free(tmp_path):
    told = []
    with FileLock(tmp_path / "lock", wait=True, waiting=lambda: told.append(True)):
        pass
    assert not told


def test_threads_of_one_process_exclude_each_other(tmp_path):
    inside, most = [], []

    def work():
        for _ in range(20):
            with FileLock(tmp_path / "lock", wait=True):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 80


def test_a_forked_child_does_not_keep_the_lock(tmp_path):
    lock = FileLock(tmp_path / "lock")
    lock.acquire()
    (child_waits, end), (parent_waits, begun) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.close(end)
        os.write(begun, b"x")
        os.read(child_waits, 1)
        os._exit(0)
    os.read(parent_waits, 1)
    lock.release()
    assert not lock.is_held()
    os.close(end)
    assert os.waitpid(child, 0)[1] == 0
    for descriptor in (child_waits, parent_waits, begun):
        os.close(descriptor)


def test_a_forked_child_does_not_release_the_lock_of_its_parent(tmp_path):
    lock = FileLock(tmp_path / "lock")
    with lock:
        child = os.fork()
        if child == 0:
            lock.release()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert lock.is_held()


def test_a_program_that_inherits_the_descriptor_holds_the_lock(tmp_path):
    lock = FileLock(tmp_path / "lock")
    with lock:
        heir = subprocess.Popen(
            [sys.executable, "-c", "import sys; sys.stdin.read()"],
            stdin=subprocess.PIPE,
            pass_fds=(lock.descriptor,),
        )
    assert lock.is_held()
    heir.communicate()
    assert not lock.is_held()
    with pytest.raises(ValueError, match="not locked"):
        _ = lock.descriptor


def test_a_file_that_cannot_be_opened_is_an_error_of_the_system(tmp_path):
    lock = FileLock(tmp_path / "absent" / "lock")
    assert not lock.is_held()
    with pytest.raises(FileNotFoundError):
        lock.acquire()
