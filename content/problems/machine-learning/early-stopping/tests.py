"""Tests of Early stopping."""

import math

from etude.practice.suite import Rng, Suite

# Arguments: the losses in turn, patience and min_delta.
suite = Suite()


def curve(rng: Rng, epochs: int) -> list[float]:
    """Return a loss that falls, reaches its lowest point and rises again, with noise."""
    turn = rng.integer(epochs // 3, 2 * epochs // 3)
    return [
        round(1 + ((epoch - turn) / epochs) ** 2 + rng.number(-0.03, 0.03), 3)
        for epoch in range(epochs)
    ]


@suite.visible("a loss that falls and rises")
def falls_and_rises(rng: Rng):
    low = rng.integer(1, 40) / 64
    return [low + 0.5, low + 0.25, low, low + 0.125, low + 0.25, low + 0.5], 2, 0.0


@suite.visible("a NaN on the way")
def nan_shown(rng: Rng):
    low = rng.integer(1, 40) / 64
    return [low + 0.5, math.nan, low, math.nan, low, low - 0.25], 2, 0.0


@suite.visible("a patience of 0", raises=ValueError)
def no_patience_shown(rng: Rng):
    return [1.0], 0, 0.0


@suite.hidden(
    "a patience of one",
    edge="patience = 1",
    note="With a patience of 1 the first epoch without improvement ends training.",
)
def impatient(rng: Rng):
    return [3.0, 2.0, 1.5, 1.75, 1.0], 1, 0.0


@suite.hidden("no epochs", note="Before the first epoch there is no best one.")
def none(rng: Rng):
    return [], 3, 0.0


@suite.hidden(
    "losses that are all equal",
    note="An equal loss is no improvement. The first epoch is the best one.",
)
def equal(rng: Rng):
    return [rng.integer(1, 9) / 4] * 5, 3, 0.0


@suite.hidden(
    "only NaN",
    edge="no improvement at all",
    note="NaN never improves: there is no best epoch, and patience runs out.",
)
def only_nan(rng: Rng):
    return [math.nan] * 4, 3, 0.0


@suite.hidden(
    "only infinity",
    edge="no improvement at all",
    note="Infinity is not lower than the infinity that best_loss begins with.",
)
def only_infinity(rng: Rng):
    return [math.inf, math.inf, math.inf], 2, 0.0


@suite.hidden(
    "a first loss that is NaN",
    edge="a first loss that is NaN",
    concept="NaN",
    note="A comparison with NaN is false. If NaN becomes the best loss, nothing is ever better.",
)
def first_nan(rng: Rng):
    return [math.nan, rng.integer(8, 16) / 4, 1.5, 1.25, math.nan, 1.0], 3, 0.0


@suite.hidden(
    "NaN and worse losses in a row",
    concept="NaN",
    note="A NaN counts as an epoch without improvement, like any other.",
)
def mixed(rng: Rng):
    return [2.0, 1.0, math.nan, 1.5, math.nan, 0.5, 0.25], 3, 0.0


@suite.hidden(
    "patience that begins anew",
    note="Epochs without improvement must follow each other: an improvement sets the count to 0.",
)
def anew(rng: Rng):
    return [4.0, 4.5, 4.25, 3.0, 3.5, 3.25, 2.0, 2.5, 2.25, 2.125, 1.0], 3, 0.0


@suite.hidden(
    "lower by exactly min_delta",
    concept="min_delta",
    note="The loss must be lower by more than min_delta.",
)
def exactly(rng: Rng):
    start = float(rng.integer(2, 9))
    return [start, start - 0.25, start - 0.5, start - 0.75], 2, 0.25


@suite.hidden(
    "a slow descent",
    concept="min_delta",
    note="Compare with the loss of the last improvement. Small steps add up until they are one.",
)
def slow(rng: Rng):
    start = float(rng.integer(4, 9))
    return [start - 0.125 * epoch for epoch in range(12)], 3, 0.3


@suite.hidden(
    "a descent that is too slow",
    concept="min_delta",
    note="The lowest loss need not be the best one: an improvement below min_delta is none.",
)
def too_slow(rng: Rng):
    start = float(rng.integer(4, 9))
    return [start - 0.0625 * epoch for epoch in range(9)], 3, 0.5


@suite.hidden(
    "a small rise after small steps down",
    concept="min_delta",
    note="best_loss stays that of the last improvement, also where a lower loss has been seen.",
)
def stale(rng: Rng):
    return [2.0, 1.875, 1.625, 1.75, 1.375, 1.5, 1.25, 0.75], 4, 0.25


@suite.hidden(
    "losses after the end",
    concept="state",
    note="Training has ended: a better loss that comes later changes nothing.",
)
def after(rng: Rng):
    return [2.0, 3.0, 3.0, 1.0, 0.5, math.nan, 0.25], 2, 0.0


@suite.hidden(
    "negative losses", note="A loss may be below 0, such as the log-likelihood of a density."
)
def negative(rng: Rng):
    return [0.5, -0.5, -1.5, -1.25, -2.5, -2.0, -2.25], 2, 0.25


@suite.hidden("a loss of exactly 0", note="0 is a loss; in Python it is also false.")
def zero(rng: Rng):
    return [1.0, 0.0, 0.0, 0.5, 0.0, 0.0], 4, 0.0


@suite.hidden("a long run without an end", note="As long as the loss improves, nothing stops.")
def long(rng: Rng):
    return [100.0 - epoch / 2 for epoch in range(200)], 1, 0.125


@suite.hidden("a negative patience", raises=ValueError, note="Patience is at least 1.")
def negative_patience(rng: Rng):
    return [1.0, 2.0], -2, 0.0


@suite.hidden("a negative min_delta", raises=ValueError, note="With it a worse loss would improve.")
def negative_delta(rng: Rng):
    return [1.0, 2.0], 2, -0.5


@suite.hidden(
    "a min_delta that is NaN",
    raises=ValueError,
    concept="NaN",
    note="NaN < 0 is false as well. Ask whether min_delta >= 0 holds.",
)
def nan_delta(rng: Rng):
    return [1.0, 0.5], 2, math.nan


@suite.generated("any curve", times=4)
def curves(rng: Rng):
    # Losses have three decimals and the distances that count five: never closer than 1e-6.
    return curve(rng, rng.integer(12, 60)), rng.integer(1, 6), rng.choice([0.0, 0.00105, 0.02005])
