"""Tests of Distances by broadcasting."""

import torch

from etude.practice.compare import Tolerance
from etude.practice.suite import Rng, Suite

suite = Suite(tolerance=Tolerance(rtol=1e-4, atol=1e-6))


@suite.visible("two points and three points in the plane")
def plane(rng: Rng):
    return rng.randn(2, 2), rng.randn(3, 2)


@suite.visible("five points and one in space")
def space(rng: Rng):
    return rng.randn(5, 3), rng.randn(1, 3)


@suite.hidden("no points in a", edge="N = 0", note="No points make a table of shape (0, M).")
def none(rng: Rng):
    return torch.empty(0, 3), rng.randn(4, 3)


@suite.hidden("one point in a", edge="N = 1", note="The table of one point has the shape (1, M).")
def one(rng: Rng):
    return rng.randn(1, 3), rng.randn(4, 3)


@suite.hidden("one point in b", edge="M = 1", note="The table has the shape (N, 1).")
def one_other(rng: Rng):
    return rng.randn(4, 3), rng.randn(1, 3)


@suite.hidden("one coordinate", edge="D = 1", note="Sum over the coordinates, also over one alone.")
def line(rng: Rng):
    return rng.randn(5, 1), rng.randn(7, 1)


@suite.hidden(
    "as many points as coordinates",
    note="Where N, M and D are equal, wrong shapes go unnoticed. Check which dimension is which.",
)
def cube(rng: Rng):
    return rng.randn(4, 4), rng.randn(4, 4)


@suite.hidden(
    "far from the origin and close together",
    concept="numerical accuracy",
    note="The difference of two large squares has few right digits. Subtract before you square.",
)
def far(rng: Rng):
    return rng.randn(6, 4) + 10_000, rng.randn(5, 4) + 10_000


@suite.hidden(
    "the same points twice, far from the origin",
    concept="numerical accuracy",
    note="A point is 0 away from itself, exactly.",
)
def same(rng: Rng):
    points = rng.randn(6, 8, scale=100.0)
    return points, points.clone()


@suite.hidden("large and negative coordinates", note="Squares are never negative.")
def large(rng: Rng):
    return rng.randn(5, 3, scale=1e6), rng.randn(4, 3, scale=1e6)


@suite.hidden("very small coordinates", note="Squares of small numbers are smaller still, not 0.")
def small(rng: Rng):
    return rng.randn(5, 3, scale=0.01), rng.randn(4, 3, scale=0.01)


@suite.hidden(
    "float64",
    concept="dtypes",
    note="Keep the type, and its accuracy.",
    tolerance=Tolerance(rtol=1e-11, atol=1e-13),
)
def double(rng: Rng):
    return rng.randn(5, 4, dtype=torch.float64), rng.randn(6, 4, dtype=torch.float64)


@suite.hidden("transposed views", concept="memory layout")
def transposed(rng: Rng):
    return rng.randn(3, 8).T, rng.randn(3, 6).T


@suite.generated("any sizes", times=3)
def sizes(rng: Rng):
    width = rng.integer(2, 17)
    return rng.randn(rng.integer(2, 40), width), rng.randn(rng.integer(2, 40), width)
