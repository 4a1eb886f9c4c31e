"""Tests of Means of groups."""

import torch

from etude.practice.compare import Tolerance
from etude.practice.suite import Rng, Suite

suite = Suite(tolerance=Tolerance(rtol=1e-4, atol=2e-6))


def case(rng: Rng, groups: torch.Tensor, count: int, width: int, **more):
    values = rng.randn(len(groups), width, **more)
    # The last argument weighs the means for the gradient that the driver asks for.
    return values, groups, count, rng.randn(count, width, dtype=values.dtype)


@suite.visible("three rows, three groups, one of them empty")
def three(rng: Rng):
    return case(rng, torch.tensor([2, 0, 2]), 3, 2)


@suite.visible("a group index that is too large", raises=ValueError)
def too_large_shown(rng: Rng):
    return case(rng, torch.tensor([0, 3]), 3, 2)


@suite.hidden("no rows", edge="N = 0", note="Without rows each of the G groups is empty.")
def none(rng: Rng):
    return case(rng, torch.empty(0, dtype=torch.int64), 4, 3)


@suite.hidden("one row", edge="N = 1", note="One row is its own mean; the other groups are empty.")
def one(rng: Rng):
    return case(rng, torch.tensor([1]), 3, 4)


@suite.hidden(
    "several empty groups, the last one too",
    edge="an empty group",
    note="There are G rows, also where the largest index that occurs is smaller than G - 1.",
)
def empty(rng: Rng):
    return case(rng, torch.tensor([1, 4, 1, 4, 4]), 9, 3)


@suite.hidden("one column", edge="D = 1", note="The result keeps its second dimension: (G, 1).")
def column(rng: Rng):
    return case(rng, rng.integers(0, 4, (12,)), 4, 1)


@suite.hidden("all rows in one group", note="Every row counts, also where indices repeat.")
def together(rng: Rng):
    return case(rng, torch.zeros(7, dtype=torch.int64), 1, 3)


@suite.hidden("each row in a group of its own, out of order", note="A mean of one row is this row.")
def apart(rng: Rng):
    return case(rng, rng.permutation(6), 6, 6)


@suite.hidden(
    "groups whose members are scattered",
    note="Members of a group need not stand next to each other.",
)
def scattered(rng: Rng):
    return case(rng, torch.tensor([0, 1, 2] * 5), 3, 4)


@suite.hidden("values that are far from zero", note="Divide by the number of the group's own rows.")
def shifted(rng: Rng):
    values, groups, count, weights = case(rng, torch.tensor([0, 0, 0, 1, 3, 3]), 5, 2)
    return values - 1000, groups, count, weights


@suite.hidden(
    "a negative group index",
    raises=ValueError,
    note="In an index, -1 would quietly mean the last group.",
)
def negative(rng: Rng):
    return case(rng, torch.tensor([0, -1, 2]), 3, 2)


@suite.hidden(
    "a group index equal to G", raises=ValueError, note="G groups have the indices 0 to G - 1."
)
def too_large(rng: Rng):
    return case(rng, torch.tensor([0, 1, 5, 2]), 5, 2)


@suite.hidden(
    "float64", concept="dtypes", note="Keep the type.", tolerance=Tolerance(rtol=1e-11, atol=1e-13)
)
def double(rng: Rng):
    return case(rng, rng.integers(0, 5, (20,)), 5, 3, dtype=torch.float64)


@suite.hidden("values that are a transposed view", concept="memory layout")
def transposed(rng: Rng):
    groups = rng.integers(0, 3, (10, 2))[:, 0]
    return rng.randn(4, 10).T, groups, 3, rng.randn(3, 4)


@suite.generated("any sizes", times=3)
def sizes(rng: Rng):
    count = rng.integer(2, 30)
    return case(rng, rng.integers(0, count, (rng.integer(2, 200),)), count, rng.integer(1, 20))
