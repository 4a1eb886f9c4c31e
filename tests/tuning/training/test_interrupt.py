"""Ctrl-C is answered while the main thread computes, and stops it afterwards."""

from __future__ import annotations

import ctypes
import os
import signal
import threading

import pytest

from etude.tuning.training.interrupt import StopAnswer, answers, stop_request


@pytest.fixture(autouse=True)
def termination_is_nobodys():
    """Start from the system's own handling, whatever a library in this process has taken."""
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_answer_comes_while_the_main_thread_is_inside_a_kernel(number):
    """A mutex is what a long kernel is to Python: no handler runs before it returns.

    It is unlocked by the answer, so the test ends only if that comes from outside the main thread.
    """
    libc = ctypes.CDLL(None)
    mutex = ctypes.create_string_buffer(64)  # all zeros: an unlocked mutex of the default kind
    libc.pthread_mutex_lock(mutex)
    said: list[str] = []
    gave_up = threading.Event()

    def unlock() -> None:
        libc.pthread_mutex_unlock(mutex)

    def say(text: str) -> None:
        said.append(text)
        unlock()

    def give_up() -> None:
        gave_up.set()
        unlock()

    watchdog = threading.Timer(60, give_up)
    watchdog.start()
    with pytest.raises(KeyboardInterrupt), answers(say) as answer:
        answer.will = lambda: "step 3 is saved"
        threading.Thread(target=os.kill, args=(os.getpid(), number)).start()
        libc.pthread_mutex_lock(mutex)
        signal.pause()  # where the signal came first, Python's handler runs at the latest here
    watchdog.cancel()
    assert said == ["stopping: step 3 is saved"]
    assert not gave_up.is_set()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.set_wakeup_fd(-1) == -1


def test_a_stop_request_is_answered_once_and_the_second_signal_raises():
    said: list[str] = []
    answered = threading.Event()

    def say(text: str) -> None:
        said.append(text)
        answered.set()

    with pytest.raises(KeyboardInterrupt), answers(say) as answer, stop_request() as stop:
        assert not stop
        with answer.during(lambda: "this step is finished first"):
            signal.raise_signal(signal.SIGINT)
            assert answered.wait(60)
        assert stop and stop.signal == signal.SIGINT
        signal.raise_signal(signal.SIGINT)
    assert said == ["stopping: this step is finished first"]


def test_what_a_stop_would_do_is_that_of_the_innermost_stage():
    answer = StopAnswer(lambda: "outer")
    with answer.during(lambda: "inner"):
        assert answer.will() == "inner"
    assert answer.will() == "outer"
