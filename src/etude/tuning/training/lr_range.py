"""Learning-rate range test (Smith 2017, "Cyclical Learning Rates", section 3.3).

One short run raises the learning rate exponentially, by the same factor in every step, from far
too low to far too high. Its loss falls where the rate is useful and rises where it is not. The
weights that it leaves are of no use; the curve is.

The losses are smoothed by an exponential moving average with bias correction, over log-rates. The
average of the forward and the backward one has no lag: a minimum is where it was, not some steps
later.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from etude.core.errors import RunError
from etude.tuning.metrics.smoothing import smooth
from etude.tuning.training.interrupt import StopRequest
from etude.tuning.training.step import NotFiniteError, OptimizerSteps

DIVERGED = 4.0
"""The test ends where the smoothed loss is above this multiple of its lowest value."""

WORSE_THAN_UNTRAINED = 1.25
"""Or above this multiple of the loss before the rate had an effect: a classifier's loss has no room
for four times its lowest."""

FIRST = 10
"""Steps from which the loss before the rate had an effect is taken; the test cannot end in them."""

FLAT = 0.05
"""A rate is in the flat neighbourhood of the best if its loss is at most this fraction above, and
at least half of the fall is left."""

SURE = 4.0
"""The loss fell if it did by more than this many standard errors. The lowest of a hundred smoothed
values lies two below the first ones by chance alone, and four in about one test of forty."""


@dataclass(frozen=True)
class RangeTest:
    """What a range test found."""

    rates: list[float]
    """Learning rate of each step, ascending."""
    losses: list[float]
    """Loss of each step, before its update, in the objective's unit."""
    ended: str
    """Why it ended."""
    unit: str
    """Of the losses."""
    smoothed: list[float]
    """The losses, smoothed without lag."""
    window: float
    """Steps that a smoothed loss is a mean of, about."""

    @property
    def lowest(self) -> int:
        """Step of the lowest smoothed loss."""
        return min(range(len(self.smoothed)), key=self.smoothed.__getitem__)

    @property
    def steepest(self) -> int:
        """Step at which the smoothed loss falls fastest, over log-rate, before the lowest."""
        # A step is a constant difference of log-rate.
        falls = [
            self.smoothed[i - 1] - self.smoothed[i + 1]
            for i in range(1, len(self.smoothed) - 1)
            if i <= self.lowest
        ]
        return 1 + max(range(len(falls)), key=falls.__getitem__) if falls else self.lowest

    @property
    def proposal(self) -> float:
        """The peak learning rate to train with, two significant digits.

        The geometric mean of where the loss falls fastest, which is cautious, and where it is
        lowest, which is too high for a whole run.
        """
        middle = math.sqrt(self.rates[self.steepest] * self.rates[self.lowest])
        return float(f"{middle:.1e}")

    @property
    def began(self) -> float:
        """Mean loss of the first steps, before the rate had an effect."""
        return sum(self.losses[:FIRST]) / len(self.losses[:FIRST])

    @property
    def flat(self) -> tuple[float, float]:
        """The rates around the lowest smoothed loss at which it is hardly higher; see `FLAT`."""
        least = self.smoothed[self.lowest]
        limit = min((1 + FLAT) * least, least + max(0.0, self.began - least) / 2)
        first = last = self.lowest
        while first > 0 and self.smoothed[first - 1] <= limit:
            first -= 1
        while last < len(self.smoothed) - 1 and self.smoothed[last + 1] <= limit:
            last += 1
        return self.rates[first], self.rates[last]

    @property
    def fell(self) -> bool:
        """Whether the loss fell at all: by more than its noise explains.

        The noise is that of successive differences, which a slow fall hardly enlarges.
        """
        known = self.losses[: max(FIRST, self.lowest + 1)]
        squares = [(b - a) ** 2 for a, b in pairwise(known)]
        noise = math.sqrt(sum(squares) / len(squares) / 2)
        # The average over the past is of 2 window − 1 steps' worth, as is that over the future.
        error = noise * math.sqrt(1 / (2 * (2 * self.window - 1)) + 1 / FIRST)
        return self.began - self.smoothed[self.lowest] > SURE * error

    def as_json(self) -> dict[str, Any]:
        """Return plain data."""
        low, high = self.flat
        return {
            **vars(self),
            "proposal": self.proposal if self.fell else None,
            "steepest": self.rates[self.steepest],
            "lowest": self.rates[self.lowest],
            "flat": {"from": low, "to": high, "within": FLAT},
        }


def range_test(
    steps: OptimizerSteps,
    *,
    low: float,
    high: float,
    count: int,
    stop: StopRequest | None = None,
    on_step: Callable[[int], None] | None = None,
) -> RangeTest:
    """Raise the learning rate from `low` to `high` in `count` steps, or until the loss diverges.

    Args:
        steps: takes the steps; its weights and optimiser are spent afterwards.
        low: first learning rate.
        high: last learning rate.
        count: optimiser steps, at least 20.
        stop: asked before every micro-batch.
        on_step: called with the number of steps done.

    Raises:
        Abandoned: `stop` was requested.
        RunError: the loss is not finite within the first steps, or no weight moves.
    """
    rates: list[float] = []
    losses: list[float] = []
    ended = f"at {high:g}, the highest rate"
    with steps.training():
        for step in range(count):
            rate = low * (high / low) ** (step / (count - 1))
            try:
                outcome = steps.take(step, rate, stop)
            except NotFiniteError as fault:
                if step < FIRST:
                    raise RunError(
                        f"{fault.what} at learning rate {rate:.1e}, in step {step + 1}; begin "
                        "lower, or inspect the data"
                    ) from None
                ended = f"at {rate:.1e}, where {fault.what}"
                break
            rates.append(rate)
            losses.append(outcome.loss)
            if on_step is not None:
                on_step(step + 1)
            if reason := _diverged(losses, count):
                ended = f"at {rate:.1e}, where the loss is {reason}"
                break
    smoothed = _without_lag(losses, count)
    return RangeTest(rates, losses, ended, steps.objective.unit, smoothed, _window(count))


def _diverged(losses: Sequence[float], count: int) -> str | None:
    """Return why the test should end; None if it should not."""
    if len(losses) <= FIRST:
        return None
    smoothed = smooth(losses, _weight(count))
    known = [value for value in smoothed if value is not None]
    if known[-1] > DIVERGED * min(known):
        return f"above {DIVERGED:g} times the lowest"
    if known[-1] > WORSE_THAN_UNTRAINED * max(known[:FIRST]):
        return f"above {WORSE_THAN_UNTRAINED:g} times that of the untrained model"
    return None


def _window(count: int) -> float:
    """Return the steps that the average over the past is of: a twentieth of the test."""
    return max(2.0, count / 20)


def _weight(count: int) -> float:
    return 1 - 1 / _window(count)


def _without_lag(losses: Sequence[float], count: int) -> list[float]:
    """Return the mean of the average over the past and of that over the future."""
    weight = _weight(count)
    forward = smooth(losses, weight)
    backward = smooth(losses[::-1], weight)[::-1]
    return [((a or 0.0) + (b or 0.0)) / 2 for a, b in zip(forward, backward, strict=True)]
