"""Tests of RMS norm."""

import torch

from etude.practice.compare import Tolerance
from etude.practice.suite import Rng, Suite

suite = Suite(tolerance=Tolerance(rtol=1e-5, atol=1e-7))

# One unit in the last place: float32 sums of another order may round to the neighbour.
BFLOAT16 = Tolerance(rtol=7.9e-3, atol=1e-7)
FLOAT16 = Tolerance(rtol=1e-3, atol=1e-7)


@suite.visible("two vectors of four numbers")
def two(rng: Rng):
    return rng.randn(2, 4) + 1, rng.uniform(0.5, 2, (4,))


@suite.hidden("one number", edge="d = 1", note="With d = 1 the result is nearly the sign times w.")
def one(rng: Rng):
    return rng.randn(5, 1), rng.uniform(0.5, 2, (1,))


@suite.hidden("no vectors", edge="no vectors", note="An empty batch keeps its shape.")
def empty(rng: Rng):
    return torch.empty(2, 0, 8), rng.randn(8)


@suite.hidden("a single vector", note="x may have one dimension only.")
def vector(rng: Rng):
    return rng.randn(7, scale=3), rng.randn(7)


@suite.hidden("a batch of sequences", note="Each vector is normalised on its own.")
def batch(rng: Rng):
    return rng.randn(2, 3, 2, 9, scale=5), rng.randn(9)


@suite.hidden(
    "a mean far from zero",
    concept="RMSNorm and LayerNorm",
    note="RMS norm takes no mean off; that is LayerNorm.",
)
def shifted(rng: Rng):
    return rng.randn(4, 16) + 10, rng.uniform(0.5, 2, (16,))


@suite.hidden(
    "tiny vectors",
    concept="eps",
    note="For tiny vectors it matters where eps is: beside the mean square, under the root.",
)
def tiny(rng: Rng):
    return rng.randn(4, 8, scale=1e-3), rng.uniform(0.5, 2, (8,))


@suite.hidden("another eps", concept="eps", note="Use the eps that is given.")
def other_eps(rng: Rng):
    return rng.randn(4, 8, scale=0.1), rng.uniform(0.5, 2, (8,)), 1e-2


@suite.hidden(
    "a vector of zeros", concept="eps", note="Zeros stay zeros; eps keeps the division finite."
)
def zeros(rng: Rng):
    x = rng.randn(3, 8)
    x[1] = 0
    return x, rng.uniform(0.5, 2, (8,))


@suite.hidden(
    "large float16 numbers",
    concept="precision",
    tolerance=FLOAT16,
    note="float16 ends at 65504: the square of 300 is infinite there. Square in float32.",
)
def large(rng: Rng):
    return rng.randn(3, 32, scale=8000, dtype=torch.float16), rng.uniform(0.5, 2, (32,)).half()


@suite.hidden(
    "bfloat16",
    concept="precision",
    tolerance=BFLOAT16,
    note="Compute in float32 and round once at the end; the result is bfloat16 again.",
)
def bfloat(rng: Rng):
    return rng.randn(4, 64, dtype=torch.bfloat16), rng.randn(64, dtype=torch.bfloat16)


@suite.hidden(
    "bfloat16 with a float32 weight",
    concept="dtypes",
    tolerance=BFLOAT16,
    note="The type of the result is that of x, not that of the weight.",
)
def mixed(rng: Rng):
    return rng.randn(3, 33, dtype=torch.bfloat16), rng.randn(33)


@suite.hidden(
    "float32 with a float16 weight",
    concept="dtypes",
    note="The type of the result is that of x, not that of the weight.",
)
def mixed_other(rng: Rng):
    return rng.randn(3, 33), rng.randn(33, dtype=torch.float16)


@suite.hidden("a transposed view", concept="memory layout")
def strided(rng: Rng):
    return rng.randn(6, 5).T, rng.randn(6)


@suite.generated("any sizes", times=3)
def sizes(rng: Rng):
    rows, width = rng.integer(1, 9), rng.integer(2, 257)
    return rng.randn(rows, width, scale=rng.number(0.01, 100)), rng.randn(width)
