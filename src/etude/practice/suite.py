"""Test suites of problems: the API for `tests.py`, with visible, hidden and generated tests.

A test is a function that makes the arguments of one call from a random number generator. The
expected answer is the return value of the problem's `solution.py`, so authors write no expected
values. Each submission is judged on new random numbers from its own seed.

    from etude.practice.suite import Rng, Suite

    suite = Suite()

    @suite.visible("two samples of three features")
    def two(rng: Rng):
        return rng.randn(2, 3), rng.integers(0, 5, (2,))

    @suite.hidden("one sample", edge="N = 1", note="A single sample still has a batch dimension.")
    def one(rng: Rng):
        return rng.randn(1, 3), rng.integers(0, 5, (1,))

    @suite.hidden("unequal lengths", raises=ValueError)
    def unequal(rng: Rng):
        return rng.randn(2, 3), rng.integers(0, 5, (4,))
"""

# What torch, NumPy and others leave untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false
from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch

from etude.practice.compare import Tolerance

Make = Callable[["Rng"], tuple[Any, ...]]
Check = Callable[[tuple[Any, ...], Any], str | None]


class Rng:
    """Random number generator of one test of one submission, reproducible from its seed."""

    def __init__(self, seed: int) -> None:
        self.numpy = np.random.default_rng(seed)
        """The underlying NumPy generator, for other distributions."""

    def randn(
        self, *shape: int, dtype: torch.dtype = torch.float32, scale: float = 1.0
    ) -> torch.Tensor:
        """Return normally distributed numbers with standard deviation `scale`."""
        return torch.from_numpy(np.asarray(self.numpy.standard_normal(shape) * scale)).to(dtype)

    def uniform(
        self, low: float, high: float, shape: Sequence[int] = (), dtype: torch.dtype = torch.float32
    ) -> torch.Tensor:
        """Return uniformly distributed numbers between `low` and `high`."""
        return torch.from_numpy(np.asarray(self.numpy.uniform(low, high, tuple(shape)))).to(dtype)

    def integers(
        self, low: int, high: int, shape: Sequence[int] = (), dtype: torch.dtype = torch.int64
    ) -> torch.Tensor:
        """Return integers from `low` to `high` − 1."""
        return torch.from_numpy(np.asarray(self.numpy.integers(low, high, tuple(shape)))).to(dtype)

    def bools(self, shape: Sequence[int], share: float = 0.5) -> torch.Tensor:
        """Return booleans, true with probability `share`."""
        return torch.from_numpy(np.asarray(self.numpy.random(tuple(shape)) < share))

    def permutation(self, count: int) -> torch.Tensor:
        """Return a random permutation of 0 to `count` − 1."""
        return torch.from_numpy(self.numpy.permutation(count))

    def integer(self, low: int, high: int) -> int:
        """Return one Python int from `low` to `high` − 1."""
        return int(self.numpy.integers(low, high))

    def number(self, low: float, high: float) -> float:
        """Return one Python float between `low` and `high`."""
        return float(self.numpy.uniform(low, high))

    def choice(self, options: Sequence[Any]) -> Any:
        """Return one of `options`."""
        return options[int(self.numpy.integers(len(options)))]


@dataclass(frozen=True)
class Test:
    """One test of a suite."""

    name: str
    make: Make
    visible: bool = False
    edge: str | None = None
    """The edge case that this test covers, as named in the problem's front matter."""
    concept: str | None = None
    """Concept to read about after a failure; the default is the problem's first tag."""
    note: str | None = None
    """One sentence shown after a failure, even of a hidden test: it must reveal no value."""
    raises: type[Exception] | None = None
    """The exception expected instead of an answer."""
    tolerance: Tolerance | None = None


@dataclass
class Suite:
    """All tests of a problem.

    Args:
        tolerance: default tolerance of floating-point answers.
        mutable: positions of arguments that the submission must modify in place.
        deterministic: each test runs twice, and both answers must be bit-identical.
    """

    tolerance: Tolerance = field(default_factory=Tolerance)
    mutable: tuple[int, ...] = ()
    deterministic: bool = False
    tests: list[Test] = field(default_factory=list[Test])
    checker: Check | None = None

    def visible(self, name: str, **more: Any) -> Callable[[Make], Make]:
        """Add a test whose input, expected and actual answers learners see."""
        return self._add(name, visible=True, **more)

    def hidden(self, name: str, **more: Any) -> Callable[[Make], Make]:
        """Add a test of which learners see only the name, the kind of failure and the note."""
        return self._add(name, visible=False, **more)

    def generated(self, name: str, times: int, **more: Any) -> Callable[[Make], Make]:
        """Add a hidden test `times` times, each with different random numbers."""

        def add(make: Make) -> Make:
            for index in range(times):
                self._add(f"{name} {index + 1}", visible=False, **more)(make)
            return make

        return add

    def check(self, checker: Check) -> Check:
        """Judge answers by `checker(arguments, answer)` instead of by the solution's answer.

        For problems with many right answers. It returns None for a right answer and otherwise one
        sentence without the values of the arguments. The answer arrives as plain data.
        """
        self.checker = checker
        return checker

    def _add(self, name: str, **more: Any) -> Callable[[Make], Make]:
        def add(make: Make) -> Make:
            if any(test.name == name for test in self.tests):
                raise ValueError(f"two tests have the name {name!r}")
            self.tests.append(Test(name=name, make=make, **more))
            return make

        return add

    def arguments(self, test: Test, seed: int) -> tuple[Any, ...]:
        """Return the arguments of `test` for one submission's seed."""
        # crc32 and not hash(): the same seed must give the same numbers in every process.
        made = test.make(Rng(seed ^ zlib.crc32(test.name.encode())))
        if not isinstance(cast("object", made), tuple):
            raise TypeError(
                f"test {test.name!r} returns {type(made).__name__}; return a tuple of arguments"
            )
        return made
