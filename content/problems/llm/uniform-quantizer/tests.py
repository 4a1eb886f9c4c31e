"""Tests of A uniform quantiser."""

import torch

from etude.practice.compare import Tolerance
from etude.practice.suite import Rng, Suite

suite = Suite(tolerance=Tolerance(rtol=1e-5, atol=0.0))


def clear(x: torch.Tensor, bits: int, per_row: bool = False, limit: float | None = None):
    """Return the arguments, with a 0 for each number that would be close to a tie."""
    wide, last = x.double(), 2 ** (bits - 1) - 1
    largest = wide.abs().amax(-1, keepdim=True) if per_row else wide.abs().max()
    steps = wide * last / (largest if limit is None else limit)
    return x.masked_fill((steps % 1 - 0.5).abs() < 2e-3, 0.0), bits, per_row, limit


@suite.visible("four bits, one scale")
def four(rng: Rng):
    return clear(rng.randn(2, 4), 4)


@suite.visible("four bits, a scale a row")
def four_rows(rng: Rng):
    return clear(rng.randn(2, 4) * torch.tensor([[1.0], [100.0]]), 4, True)


@suite.visible("one bit", raises=ValueError)
def one_bit_shown(rng: Rng):
    return rng.randn(2, 3), 1


@suite.hidden("eight bits", note="With 8 bits the codes go from -127 to 127.")
def eight(rng: Rng):
    return clear(rng.randn(20, 30), 8)


@suite.hidden("two bits", edge="two bits", note="With 2 bits there are the codes -1, 0 and 1.")
def two(rng: Rng):
    return clear(rng.randn(6, 9), 2, True)


@suite.hidden("one number", edge="one number", note="A single number is its own largest one.")
def one(rng: Rng):
    return clear(rng.randn(1, scale=5.0), 5)


@suite.hidden("no rows", edge="no rows", note="An empty tensor has no largest number.")
def none(rng: Rng):
    return torch.empty(0, 5), 8, False


@suite.hidden("no rows, a scale a row", edge="no rows", note="The results are empty.")
def none_rows(rng: Rng):
    return torch.empty(2, 0, 5), 4, True


@suite.hidden("zeros only", edge="a row of zeros", note="Q / 0 is infinite, and 0 · ∞ is NaN.")
def zeros(rng: Rng):
    return torch.zeros(3, 4), 8, False


@suite.hidden(
    "a row of zeros among others",
    edge="a row of zeros",
    note="Where a row has no number but 0, its codes are 0.",
)
def zero_row(rng: Rng):
    x = rng.randn(4, 6)
    x[1] = 0
    return clear(x, 6, True)


@suite.hidden(
    "ties",
    concept="rounding",
    note="A tie goes to the even neighbour, whichever direction this is.",
)
def ties(rng: Rng):
    power = 2.0 ** rng.integer(-6, 7)
    x = torch.cat([torch.arange(-126.5, 127), torch.tensor([127.0])])
    return x[rng.permutation(len(x))] * power, 8


@suite.hidden(
    "the largest number is negative",
    note="What counts is the largest magnitude, not the largest number.",
)
def negative(rng: Rng):
    x = -rng.randn(3, 8).abs()
    x[:, 0] *= 10
    return clear(x, 5, True)


@suite.hidden(
    "beyond the limit",
    concept="clipping",
    note="Clip codes to the range from -Q to Q before they become int8, which wraps around.",
)
def clipped(rng: Rng):
    return clear(rng.randn(8, 10, scale=50.0), 8, False, 10.0)


@suite.hidden(
    "a limit and a scale a row",
    concept="clipping",
    note="A limit holds for all rows, whether per_row is set or not.",
)
def clipped_rows(rng: Rng):
    return clear(rng.randn(6, 10), 4, True, rng.number(0.5, 1.5))


@suite.hidden(
    "a limit above all numbers",
    concept="clipping",
    note="A limit sets the scale, also where nothing is beyond it.",
)
def roomy(rng: Rng):
    return clear(rng.randn(4, 7), 7, False, 20.0)


@suite.hidden(
    "just below the last step",
    concept="clipping",
    note="The grid is symmetric: -Q is the last code, and -Q - 1 is never used.",
)
def symmetric(rng: Rng):
    return -rng.uniform(0.9, 1.1, (40,)), 4, False, 0.5


@suite.hidden("an outlier", note="One scale for all: a single large number takes the whole grid.")
def outlier(rng: Rng):
    x = rng.randn(5, 20)
    x[rng.integer(0, 5), rng.integer(0, 20)] = 40.0
    return clear(x, 8)


@suite.hidden("tiny and huge rows", concept="scales", note="Each row has a scale of its own.")
def magnitudes(rng: Rng):
    return clear(rng.randn(4, 12) * torch.tensor([[1e-28], [1.0], [1e28], [1e5]]), 8, True)


@suite.hidden("three dimensions", note="A row runs along the last dimension.")
def three_dimensions(rng: Rng):
    return clear(rng.randn(2, 3, 5) * rng.uniform(0.1, 50, (2, 3, 1)), 6, True)


@suite.hidden(
    "bfloat16",
    concept="precision",
    tolerance=Tolerance(rtol=0.004, atol=0.0),
    note="In bfloat16 the product s · x is off by half a step; compute in float32.",
)
def brain(rng: Rng):
    return clear(rng.randn(12, 40, dtype=torch.bfloat16), 8, True)


@suite.hidden(
    "float16",
    concept="precision",
    tolerance=Tolerance(rtol=0.001, atol=1e-7),
    note="In float16 the scale of small numbers is infinite; compute in float32.",
)
def half(rng: Rng):
    return clear(rng.randn(12, 40, dtype=torch.float16, scale=3e-4), 8)


@suite.hidden(
    "float64",
    concept="precision",
    tolerance=Tolerance(rtol=1e-12, atol=0.0),
    note="What remains of float64 numbers is float64.",
)
def double(rng: Rng):
    return clear(rng.randn(5, 9, dtype=torch.float64), 8, True)


@suite.hidden("a transposed view", concept="memory layout")
def strided(rng: Rng):
    return clear(rng.randn(7, 5).T, 5, True)


@suite.hidden("nine bits", raises=ValueError, note="Nine bits do not fit into int8.")
def nine(rng: Rng):
    return rng.randn(3, 3), 9


@suite.hidden("a limit of zero", raises=ValueError, note="A limit must be above 0.")
def no_limit(rng: Rng):
    return rng.randn(3, 3), 4, False, 0.0


@suite.hidden("a negative limit", raises=ValueError, note="A limit is a magnitude.")
def negative_limit(rng: Rng):
    return rng.randn(3, 3), 4, True, -1.0


@suite.generated("any sizes", times=3)
def sizes(rng: Rng):
    x = rng.randn(rng.integer(1, 20), rng.integer(1, 200), scale=rng.number(0.01, 50))
    return clear(x, rng.integer(2, 9), rng.integer(0, 2) == 1)
