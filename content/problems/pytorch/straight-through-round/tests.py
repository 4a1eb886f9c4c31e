"""Tests of Rounding with a straight-through gradient."""

import torch

from etude.practice.compare import Tolerance
from etude.practice.suite import Rng, Suite

# The grid is coarse, so a right answer has no error but that of float32.
suite = Suite(tolerance=Tolerance(rtol=1e-6, atol=1e-7))


def case(rng: Rng, x: torch.Tensor, scale: float, low: float, high: float):
    # The last argument weighs the answer for the gradient that the driver asks for.
    return x, scale, low, high, rng.randn(*x.shape, dtype=x.dtype)


@suite.visible("six numbers, three inside the bounds")
def six(rng: Rng):
    inside, outside = rng.uniform(-0.9, 0.9, (3,)), rng.uniform(1.1, 3.0, (3,))
    return case(rng, torch.cat([inside, outside]), 4.0, -1.0, 1.0)


@suite.visible("both sides outside")
def both(rng: Rng):
    return case(rng, rng.uniform(-4, 4, (2, 5)), 2.0, -1.5, 2.0)


@suite.hidden("no numbers", edge="no numbers", note="An empty tensor keeps its shape.")
def none(rng: Rng):
    return case(rng, torch.empty(0, 3), 2.0, -1.0, 1.0)


@suite.hidden("one number without dimensions", edge="a scalar", note="The shape stays ().")
def scalar(rng: Rng):
    return case(rng, rng.uniform(-0.8, 0.8), 8.0, -1.0, 1.0)


@suite.hidden(
    "numbers exactly at the bounds",
    edge="x at the bounds",
    concept="straight-through estimator",
    note="Both bounds belong to the inside.",
)
def bounds(rng: Rng):
    return case(rng, torch.tensor([-1.5, 1.0, 0.0, -1.5, 1.0, 2.0]), 2.0, -1.5, 1.0)


@suite.hidden(
    "numbers halfway between two steps",
    concept="quantisation",
    note="torch.round goes to the even one of two neighbours.",
)
def halfway(rng: Rng):
    odd = 2 * rng.integers(-7, 7, (12,)) + 1
    return case(rng, odd / 4, 2.0, -10.0, 10.0)


@suite.hidden(
    "bounds that lie beside the grid",
    concept="quantisation",
    note="Clip first and round then. Whether x is inside is asked of x, not of the rounded number.",
)
def beside(rng: Rng):
    return case(rng, rng.uniform(-2, 2, (40,)), 2.0, -0.9, 0.9)


@suite.hidden("all numbers outside", note="Far outside no gradient passes at all.")
def outside(rng: Rng):
    return case(rng, rng.uniform(5, 9, (8,)) * torch.tensor([1.0, -1.0] * 4), 3.0, -2.0, 2.0)


@suite.hidden(
    "a scale below 1", note="Steps may be wider than 1. The gradient does not depend on the scale."
)
def coarse(rng: Rng):
    return case(rng, rng.randn(30, scale=10.0), 0.25, -16.0, 12.0)


@suite.hidden("bounds that do not contain 0", note="Take the bounds as they are.")
def positive(rng: Rng):
    return case(rng, rng.uniform(0, 4, (20,)), 5.0, 1.0, 3.0)


@suite.hidden("very large numbers", note="Clip before you scale, and nothing overflows.")
def large(rng: Rng):
    return case(rng, rng.randn(10, scale=1e37), 1000.0, -1.0, 1.0)


@suite.hidden(
    "float64", concept="dtypes", note="Keep the type.", tolerance=Tolerance(rtol=1e-13, atol=1e-14)
)
def double(rng: Rng):
    return case(rng, rng.randn(4, 6, dtype=torch.float64), 10.0, -1.0, 1.0)


@suite.hidden("a transposed view", concept="memory layout")
def transposed(rng: Rng):
    return case(rng, rng.randn(5, 4).T, 4.0, -0.75, 1.25)


@suite.generated("any numbers", times=2)
def any_numbers(rng: Rng):
    x = rng.randn(rng.integer(2, 10), rng.integer(2, 10), scale=2.0)
    return case(rng, x, rng.number(0.5, 8), rng.number(-3, -0.5), rng.number(0.5, 3))
