"""What a problem's `tests.py` is written with: a suite of tests, visible, hidden and generated.

A test is a function that makes the arguments of one call from a source of random numbers; what
is expected is what the problem's own `solution.py` answers to them, so no expected value is ever
typed by hand. Each submission is judged on new numbers from its own seed.

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
    """Random tensors of one test of one submission; the same seed gives the same numbers."""

    def __init__(self, seed: int) -> None:
        self.numpy = np.random.default_rng(seed)
        """The NumPy generator below, for what the methods do not offer."""

    def randn(
        self, *shape: int, dtype: torch.dtype = torch.float32, scale: float = 1.0
    ) -> torch.Tensor:
        """Return normal numbers with the standard deviation `scale`."""
        return torch.from_numpy(np.asarray(self.numpy.standard_normal(shape) * scale)).to(dtype)

    def uniform(
        self, low: float, high: float, shape: Sequence[int] = (), dtype: torch.dtype = torch.float32
    ) -> torch.Tensor:
        """Return numbers between `low` and `high`."""
        return torch.from_numpy(np.asarray(self.numpy.uniform(low, high, tuple(shape)))).to(dtype)

    def integers(
        self, low: int, high: int, shape: Sequence[int] = (), dtype: torch.dtype = torch.int64
    ) -> torch.Tensor:
        """Return whole numbers from `low` to `high` − 1."""
        return torch.from_numpy(np.asarray(self.numpy.integers(low, high, tuple(shape)))).to(dtype)

    def bools(self, shape: Sequence[int], share: float = 0.5) -> torch.Tensor:
        """Return booleans, true with the probability `share`."""
        return torch.from_numpy(np.asarray(self.numpy.random(tuple(shape)) < share))

    def permutation(self, count: int) -> torch.Tensor:
        """Return the numbers 0 to `count` − 1 in a random order."""
        return torch.from_numpy(self.numpy.permutation(count))

    def integer(self, low: int, high: int) -> int:
        """Return one Python int from `low` to `high` − 1."""
        return int(self.numpy.integers(low, high))

    def number(self, low: float, high: float) -> float:
        """Return one Python float between `low` and `high`."""
        return float(self.numpy.uniform(low, high))

    def choice(self, options: Sequence[Any]) -> Any:
        """Return one of `options`, as it is."""
        return options[int(self.numpy.integers(len(options)))]


@dataclass(frozen=True)
class Test:
    """One test of a suite."""

    name: str
    make: Make
    visible: bool = False
    edge: str | None = None
    """The edge size that this test covers, by the name in the problem's front matter."""
    concept: str | None = None
    """What a learner who fails here should read about; the problem's first tag without it."""
    note: str | None = None
    """One sentence for those who fail here; also for hidden tests, so it gives no value away."""
    raises: type[Exception] | None = None
    """The exception that is expected instead of an answer."""
    tolerance: Tolerance | None = None


@dataclass
class Suite:
    """All tests of a problem.

    Args:
        tolerance: how far floating-point answers may be off, where a test says nothing.
        mutable: positions of arguments that the submission is asked to change in place.
        deterministic: each test runs twice, and both answers must be the same to the bit.
    """

    tolerance: Tolerance = field(default_factory=Tolerance)
    mutable: tuple[int, ...] = ()
    deterministic: bool = False
    tests: list[Test] = field(default_factory=list[Test])
    checker: Check | None = None

    def visible(self, name: str, **more: Any) -> Callable[[Make], Make]:
        """Add a test that learners see with its input, the expected answer and theirs."""
        return self._add(name, visible=True, **more)

    def hidden(self, name: str, **more: Any) -> Callable[[Make], Make]:
        """Add a test of which learners see the name, the kind of failure and its note."""
        return self._add(name, visible=False, **more)

    def generated(self, name: str, times: int, **more: Any) -> Callable[[Make], Make]:
        """Add a hidden test `times` times, each with other random numbers."""

        def add(make: Make) -> Make:
            for index in range(times):
                self._add(f"{name} {index + 1}", visible=False, **more)(make)
            return make

        return add

    def check(self, checker: Check) -> Check:
        """Judge answers by `checker(arguments, answer)` instead of by the solution's answer.

        For problems with many right answers. It returns None for a right answer and otherwise one
        sentence without the values of the arguments. It sees plain data, whatever was sent.
        """
        self.checker = checker
        return checker

    def _add(self, name: str, **more: Any) -> Callable[[Make], Make]:
        def add(make: Make) -> Make:
            if any(test.name == name for test in self.tests):
                raise ValueError(f"two tests are called {name!r}")
            self.tests.append(Test(name=name, make=make, **more))
            return make

        return add

    def arguments(self, test: Test, seed: int) -> tuple[Any, ...]:
        """Return the arguments of `test` for one submission's seed."""
        # crc32 and not hash(): the same seed must give the same numbers in every process.
        made = test.make(Rng(seed ^ zlib.crc32(test.name.encode())))
        if not isinstance(cast("object", made), tuple):
            raise TypeError(
                f"test {test.name!r} returns {type(made).__name__}, a tuple of arguments is needed"
            )
        return made
