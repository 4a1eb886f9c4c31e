"""Chart axes: scales and tick marks at round numbers.

Positions are fractions of the axis' length, 0 at its low end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Tick:
    """A marked value."""

    position: float
    label: str


@dataclass(frozen=True)
class Axis:
    """A linear or logarithmic scale from `low` to `high`."""

    low: float
    high: float
    ticks: tuple[Tick, ...]
    logarithmic: bool = False

    def position(self, value: float) -> float:
        """Return the position of `value`, between 0 and 1 if it is on the axis."""
        return _position(value, self.low, self.high, self.logarithmic)


def linear_axis(
    values: Iterable[float],
    label: Callable[[float, int], str],
    *,
    from_zero: bool = False,
    tight: bool = False,
    count: int = 5,
) -> Axis:
    """Return an axis over the values whose ends and ticks are round numbers.

    Args:
        values: finite numbers, at least one.
        label: formats a tick, given its value and the number of decimals needed.
        from_zero: whether to start at zero.
        tight: whether to end at the extreme values, with ticks inside.
        count: approximate number of ticks.
    """
    known = [*values, *([0.0] if from_zero else [])]
    low, high = min(known), max(known)
    if low == high:
        # A single value: extend the range, upwards if it is zero.
        room = abs(low) * 0.1 or 1.0
        low, high = (low, high + room) if from_zero or low == 0 else (low - room, high + room)
    step = round_step((high - low) / count)
    if not tight:
        low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    return Axis(low, high, _ticks(low, high, step, label, logarithmic=False))


def logarithmic_axis(values: Iterable[float], label: Callable[[float, int], str]) -> Axis | None:
    """Return a logarithmic axis over the values, or None if one of them is not positive."""
    known = list(values)
    low, high = min(known), max(known)
    if low <= 0:
        return None
    if high / low < 1.01:
        low, high = low * 0.95, high * 1.05
    if high / low < 20:
        # Too narrow for powers of ten: use round numbers, unevenly spaced.
        step = round_step((high - low) / 6)
        low = max(math.floor(low / step + 1e-9) * step, low * 0.8)
        high = math.ceil(high / step - 1e-9) * step
        return Axis(low, high, _ticks(low, high, step, label, logarithmic=True), logarithmic=True)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    ticks = tuple(
        Tick(_position(10.0**power, 10.0**first, 10.0**last, True), label(10.0**power, -power))
        for power in range(first, last + 1)
    )
    return Axis(10.0**first, 10.0**last, ticks, logarithmic=True)


def round_step(least: float) -> float:
    """Return the smallest of 1, 2, 2.5 and 5 times a power of ten that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(
        multiple * power
        for multiple in (1, 2, 2.5, 5, 10)
        if multiple * power >= least * (1 - 1e-9)
    )


def decimals(step: float) -> int:
    """Return the number of decimals for multiples of a round step."""
    places = 0
    while places < 12 and not math.isclose(step * 10**places, round(step * 10**places)):
        places += 1
    return places


def thinned(ticks: Sequence[Tick]) -> list[tuple[Tick, bool]]:
    """Pair each tick with whether it may be hidden on small screens: every second one."""
    return [(tick, index % 2 == 1) for index, tick in enumerate(ticks)]


def _ticks(
    low: float,
    high: float,
    step: float,
    label: Callable[[float, int], str],
    *,
    logarithmic: bool,
) -> tuple[Tick, ...]:
    places = decimals(step)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return tuple(
        Tick(_position(index * step, low, high, logarithmic), label(index * step, places))
        for index in range(first, last + 1)
    )


def _position(value: float, low: float, high: float, logarithmic: bool) -> float:
    if logarithmic:
        value, low, high = (math.log(number) for number in (value, low, high))
    return (value - low) / (high - low)
