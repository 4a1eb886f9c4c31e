"""Tests of Successive halving."""

import math

import torch

from etude.practice.suite import Rng, Suite

# Arguments: a table of losses (candidate, budget - 1), smallest, largest, eta.
suite = Suite()


def curves(rng: Rng, count: int, largest: int, noise: float = 0.3) -> torch.Tensor:
    """Return learning curves that fall, each to an end of its own, and cross each other."""
    steps = torch.arange(1, largest + 1)
    ends = rng.uniform(0.5, 3.0, (count, 1), torch.float64)
    speeds = rng.uniform(0.3, 1.0, (count, 1), torch.float64)
    curve = ends + 3 / steps**speeds
    return curve + rng.randn(count, largest, dtype=torch.float64, scale=noise) / steps


@suite.visible("nine candidates, thirds")
def nine(rng: Rng):
    return curves(rng, 9, 9), 1, 9, 3


@suite.visible("ten candidates, halves")
def ten(rng: Rng):
    return curves(rng, 10, 12), 2, 12, 2


@suite.visible("an eta of 1", raises=ValueError)
def eta_shown(rng: Rng):
    return curves(rng, 4, 4), 1, 4, 1


@suite.hidden(
    "one candidate",
    edge="count = 1",
    note="A candidate that is alone is trained to the end, round by round.",
)
def one(rng: Rng):
    return curves(rng, 1, 20), 2, 20, 3


@suite.hidden(
    "one budget",
    edge="smallest = largest",
    note="If the first budget is the largest, there is one round, and all candidates are in it.",
)
def one_budget(rng: Rng):
    return curves(rng, 6, 5), 5, 5, 2


@suite.hidden(
    "fewer candidates than eta",
    note="At least one candidate stays: with 2 candidates and thirds, 2 // 3 would be none.",
)
def fewer(rng: Rng):
    return curves(rng, 2, 30), 1, 30, 3


@suite.hidden(
    "a number that eta does not divide",
    concept="rounding",
    note="Rounded down: of 11 candidates 3 go on with thirds.",
)
def not_divisible(rng: Rng):
    return curves(rng, 11, 27), 1, 27, 3


@suite.hidden(
    "many candidates that eta does not divide",
    concept="rounding",
    note="Each round divides the number of those that are left.",
)
def many_not_divisible(rng: Rng):
    return curves(rng, 95, 64), 1, 64, 2


@suite.hidden(
    "a largest budget between two steps",
    concept="budgets",
    note="The last budget is `largest`, also where smallest times a power of eta goes beyond.",
)
def between(rng: Rng):
    return curves(rng, 20, 50), 3, 50, 3


@suite.hidden(
    "candidates left at the end",
    concept="budgets",
    note="Few rounds leave several candidates. The best of the last round wins.",
)
def several_left(rng: Rng):
    return curves(rng, 30, 8), 4, 8, 2


@suite.hidden(
    "more rounds than candidates need",
    concept="budgets",
    note="The last candidate goes through all further rounds.",
)
def lonely(rng: Rng):
    return curves(rng, 4, 200), 1, 200, 2


@suite.hidden(
    "curves that cross",
    note="Only the losses of the current round count, not the lowest that a candidate ever had.",
)
def crossing(rng: Rng):
    table = curves(rng, 12, 16)
    table[:, 1:] += rng.uniform(0, 8, (12, 1), torch.float64) + 1
    return table, 1, 16, 2


@suite.hidden(
    "all losses equal", concept="ties", note="Of equal losses the smaller index is better."
)
def equal(rng: Rng):
    return torch.full((9, 9), rng.number(-2, 2), dtype=torch.float64), 1, 9, 3


@suite.hidden("many ties", concept="ties", note="Of equal losses the smaller index is better.")
def ties(rng: Rng):
    return rng.integers(0, 3, (40, 30)).double(), 2, 30, 2


@suite.hidden(
    "a diverged candidate",
    concept="NaN",
    note="NaN is the worst loss of all. Sorting does not know where to put it.",
)
def diverged(rng: Rng):
    table = curves(rng, 9, 9)
    table[:2, :] = table[3, :] = table[5, 2:] = table[6, :] = math.nan
    return table, 1, 9, 3


@suite.hidden(
    "candidates that diverge at random",
    concept="NaN",
    note="A candidate may be fine in one round and diverge in the next.",
)
def diverging(rng: Rng):
    table = curves(rng, 40, 40)
    return table.masked_fill(rng.bools((40, 40), 0.4), math.nan), 1, 40, 2


@suite.hidden(
    "all losses NaN",
    edge="all losses NaN",
    concept="NaN",
    note="Of several NaN the smaller index is better, and the loss that is returned is NaN.",
)
def all_nan(rng: Rng):
    return torch.full((6, 12), math.nan, dtype=torch.float64), 3, 12, 2


@suite.hidden(
    "infinite losses and NaN",
    concept="NaN",
    note="Infinity is worse than any other number, NaN is worse than infinity.",
)
def infinite(rng: Rng):
    table = torch.full((8, 8), math.nan, dtype=torch.float64)
    table[[3, 6]] = math.inf
    table[7] = 1e308
    return table, 1, 8, 2


@suite.hidden("negative losses", note="A loss may be below 0, also minus infinity.")
def negative(rng: Rng):
    table = curves(rng, 12, 18) - 5
    table[rng.integer(0, 12)] = -math.inf
    return table, 2, 18, 3


@suite.hidden("no candidates", raises=ValueError, note="There must be at least one candidate.")
def none(rng: Rng):
    return torch.empty(0, 4, dtype=torch.float64), 1, 4, 2


@suite.hidden("a budget of 0", raises=ValueError, note="Budgets begin with 1; 0 would never grow.")
def no_budget(rng: Rng):
    return curves(rng, 4, 4), 0, 4, 2


@suite.hidden("budgets the wrong way round", raises=ValueError, note="largest is the larger one.")
def turned(rng: Rng):
    return curves(rng, 4, 8), 8, 4, 2


@suite.generated("any search", times=4)
def searches(rng: Rng):
    largest = rng.integer(10, 300)
    table = curves(rng, rng.integer(2, 100), largest)
    return table, rng.integer(1, 6), largest, rng.integer(2, 6)
