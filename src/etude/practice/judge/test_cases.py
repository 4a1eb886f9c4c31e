"""Test cases of one submission: inputs for the sandbox, and expected answers.

Expected answers are computed here by the problem's own solution on this submission's inputs. They
never leave the trusted process.
"""

# What torch, NumPy and others leave untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false
from __future__ import annotations

import contextlib
import functools
import random
import threading
from collections.abc import Generator
from dataclasses import dataclass
from types import CodeType, ModuleType
from typing import Any

import numpy as np
import torch

from etude.core.errors import ProblemError
from etude.practice.problem import Problem
from etude.practice.protocol import decode, encode
from etude.practice.suite import Test

# Solutions use torch's and NumPy's global random numbers, of which each process has one state.
_RANDOM = threading.Lock()


@dataclass(frozen=True)
class Case:
    """One test of one submission: encoded arguments and the expected answer."""

    test: Test
    seed: int
    frame: bytes
    expected: Any
    raises: str | None


def make_cases(problem: Problem, seed: int, visible_only: bool = False) -> list[Case]:
    """Return the tests of one submission in the order in which they run.

    Visible tests come first, so that their output reveals nothing of hidden ones; inside both
    groups the order is random.

    Raises:
        ProblemError: a test or the solution fails.
    """
    suite = problem.suite
    order = random.Random(seed)
    tests = [test for test in suite.tests if test.visible]
    order.shuffle(tests)
    if not visible_only:
        hidden = [test for test in suite.tests if not test.visible]
        order.shuffle(hidden)
        tests += hidden
    with _RANDOM, _one_thread():
        call = _solution(problem)
        return [_case(problem, test, seed, call) for test in tests]


@contextlib.contextmanager
def _one_thread() -> Generator[None]:
    """Use one thread, as submissions do, and leave the other cores to other workers."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _case(problem: Problem, test: Test, seed: int, call: Any) -> Case:
    own = seed ^ (len(test.name) << 20)
    frame = b""
    try:
        frame = encode(list(problem.suite.arguments(test, seed)))
        _seed(own)
        answer = call(*decode(frame))
    except Exception as error:
        if test.raises is not None and isinstance(error, test.raises):
            return Case(test, own, frame, None, test.raises.__name__)
        raise ProblemError(
            f"{problem.slug}: test {test.name!r}: {type(error).__name__}: {error}"
        ) from error
    if test.raises is not None:
        raise ProblemError(
            f"{problem.slug}: test {test.name!r}: the solution raises no {test.raises.__name__}"
        )
    return Case(test, own, frame, decode(encode(answer)), None)


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    # Not torch.manual_seed: for absent devices it records a formatted stack each time.
    torch.default_generator.manual_seed(seed)


@functools.lru_cache(256)
def _compiled(source: str, name: str) -> CodeType:
    return compile(source, name, "exec")


def _solution(problem: Problem) -> Any:
    """Return the solution as a callable that takes a test's arguments."""
    module = ModuleType("solution")
    exec(_compiled(problem.solution, str(problem.folder / "solution.py")), module.__dict__)
    source = problem.driver
    if source is None:
        return getattr(module, problem.entry)
    driver = ModuleType("driver")
    exec(_compiled(source, str(problem.folder / "driver.py")), driver.__dict__)

    def drive(*arguments: Any) -> Any:
        return driver.drive(module, *arguments)

    return drive
