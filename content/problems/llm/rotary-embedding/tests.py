"""Tests of Rotary position embedding."""

import torch

from etude.practice.compare import Tolerance
from etude.practice.suite import Rng, Suite

suite = Suite(tolerance=Tolerance(rtol=1e-5, atol=1e-5))


@suite.visible("one head, three positions")
def three(rng: Rng):
    return rng.randn(1, 1, 3, 4), torch.tensor([1, 2, 5])


@suite.visible("an odd width", raises=ValueError)
def odd_shown(rng: Rng):
    return rng.randn(1, 1, 2, 5), torch.tensor([0, 1])


@suite.hidden(
    "one token in the middle of a text",
    edge="T = 1",
    note="In decoding x has one token, and its position is not 0.",
)
def one(rng: Rng):
    return rng.randn(2, 3, 1, 8), rng.integers(5, 50, (1,))


@suite.hidden("one pair", edge="d = 2", note="With d = 2 there is one pair, and its rate is 1.")
def pair(rng: Rng):
    return rng.randn(2, 2, 6, 2), rng.integers(1, 50, (6,))


@suite.hidden(
    "positions out of order, with gaps and repeats",
    concept="positions",
    note="Use the positions that are given; they need not be 0, 1, 2 and so on.",
)
def shuffled(rng: Rng):
    return rng.randn(1, 2, 9, 16), rng.integers(0, 200, (9,))


@suite.hidden(
    "other positions in each sequence",
    concept="broadcasting",
    note="With positions of shape (B, T) the angles need a dimension of size 1 for the heads.",
)
def by_sequence(rng: Rng):
    return rng.randn(3, 2, 5, 8), rng.integers(0, 100, (3, 5))


@suite.hidden(
    "as many sequences as heads",
    concept="broadcasting",
    note="The first dimension of positions belongs to the sequences, not to the heads.",
)
def square(rng: Rng):
    return rng.randn(4, 4, 4, 8), rng.integers(0, 100, (4, 4))


@suite.hidden(
    "another base",
    note="The base is an argument; models for long texts have other ones than 10000.",
)
def other_base(rng: Rng):
    return rng.randn(1, 2, 7, 32), rng.integers(0, 500, (7,)), 500000.0


@suite.hidden(
    "positions near a million",
    concept="precision",
    note="A float32 angle near a million is off by hundredths; compute angles in float64.",
)
def far(rng: Rng):
    return rng.randn(1, 2, 16, 64), rng.integers(900_000, 1_000_000, (16,))


@suite.hidden(
    "float64",
    concept="dtypes",
    tolerance=Tolerance(rtol=1e-10, atol=1e-10),
    note="float64 in, float64 out, without a detour through float32.",
)
def double(rng: Rng):
    return rng.randn(2, 2, 5, 16, dtype=torch.float64), rng.integers(0, 1000, (5,))


@suite.hidden(
    "bfloat16",
    concept="dtypes",
    tolerance=Tolerance(rtol=8e-3, atol=1e-5),
    note="Turn in float32 and round once at the end; the result is bfloat16 again.",
)
def half(rng: Rng):
    return rng.randn(2, 4, 16, 64, dtype=torch.bfloat16), rng.integers(0, 4000, (16,))


@suite.hidden("a transposed view", concept="memory layout")
def strided(rng: Rng):
    return rng.randn(2, 6, 3, 8).transpose(1, 2), rng.integers(0, 100, (6,))


@suite.hidden("an odd width in a batch", raises=ValueError, note="An odd width has no pairs.")
def odd(rng: Rng):
    return rng.randn(2, 2, 3, 7), rng.integers(0, 10, (3,))


@suite.hidden("a width of one", raises=ValueError, note="One number makes no pair either.")
def odd_one(rng: Rng):
    return rng.randn(1, 2, 3, 1), rng.integers(0, 10, (3,))


@suite.generated("any sizes", times=3)
def sizes(rng: Rng):
    batch, heads, tokens = (rng.integer(1, 6) for _ in range(3))
    x = rng.randn(batch, heads, tokens, 2 * rng.integer(2, 33))
    return x, rng.integers(1, 5000, (batch, tokens)), rng.number(1000.0, 100000.0)
