"""Tests of Log-probabilities of chosen tokens."""

import math

import torch

from etude.practice.compare import Tolerance
from etude.practice.suite import Rng, Suite

suite = Suite(tolerance=Tolerance(rtol=1e-4, atol=2e-6))


@suite.visible("two places, a vocabulary of four")
def two(rng: Rng):
    return rng.randn(2, 4), rng.integers(0, 4, (2,))


@suite.visible("a batch of two sequences")
def batch(rng: Rng):
    return rng.randn(2, 3, 5, scale=2.0), rng.integers(0, 5, (2, 3))


@suite.hidden(
    "no leading dimensions",
    edge="no leading dimensions",
    note="The logits of one place give one number, a tensor of shape ().",
)
def scalar(rng: Rng):
    return rng.randn(7), rng.integers(0, 7)


@suite.hidden("no places", edge="T = 0", note="No places give an empty tensor of shape (B, 0).")
def none(rng: Rng):
    return torch.empty(2, 0, 5), torch.empty(2, 0, dtype=torch.int64)


@suite.hidden(
    "one place",
    edge="T = 1",
    note="Remove the last dimension only: a batch of (B, 1) stays (B, 1).",
)
def one(rng: Rng):
    return rng.randn(3, 1, 6), rng.integers(0, 6, (3, 1))


@suite.hidden(
    "a vocabulary of one token", edge="V = 1", note="The only token is certain: log 1 is 0."
)
def certain(rng: Rng):
    return rng.randn(4, 1), torch.zeros(4, dtype=torch.int64)


@suite.hidden(
    "large logits",
    concept="numerical stability",
    note="The exponential of 10 000 is infinite. Let a function work with differences.",
)
def large(rng: Rng):
    return rng.uniform(-1e4, 1e4, (6, 5)), rng.integers(0, 5, (6,))


@suite.hidden(
    "all logits far below zero",
    concept="numerical stability",
    note="Here every exponential is 0, and so is their sum.",
)
def low(rng: Rng):
    return rng.randn(5, 6) - 5000, rng.integers(0, 6, (5,))


@suite.hidden(
    "a very unlikely token",
    concept="numerical stability",
    note="A probability that rounds to 0 still has a finite logarithm.",
)
def unlikely(rng: Rng):
    logits = rng.randn(4, 6)
    logits[:, 0] += 400
    return logits, rng.integers(1, 6, (4,))


@suite.hidden("forbidden tokens", note="A logit of minus infinity adds nothing to the sum.")
def forbidden(rng: Rng):
    logits = rng.randn(5, 8)
    logits[:, ::3] = -math.inf
    return logits, torch.tensor([1, 2, 4, 5, 7])


@suite.hidden(
    "as many places as tokens in the vocabulary",
    note="Normalise over the last dimension, the vocabulary, even where all sizes are equal.",
)
def square(rng: Rng):
    return rng.randn(4, 4, 4), rng.integers(0, 4, (4, 4))


@suite.hidden(
    "float64", concept="dtypes", note="Keep the type.", tolerance=Tolerance(rtol=1e-11, atol=1e-13)
)
def double(rng: Rng):
    return rng.randn(3, 9, dtype=torch.float64), rng.integers(0, 9, (3,))


@suite.hidden("logits and tokens that are transposed views", concept="memory layout")
def transposed(rng: Rng):
    return rng.randn(6, 4, 3).permute(2, 1, 0), rng.integers(0, 6, (4, 3)).T


@suite.hidden("three leading dimensions", note="Count dimensions from the end.")
def three(rng: Rng):
    return rng.randn(2, 3, 2, 5), rng.integers(0, 5, (2, 3, 2))


@suite.generated("any sizes", times=2)
def sizes(rng: Rng):
    b, t, v = rng.integer(1, 5), rng.integer(2, 12), rng.integer(2, 300)
    return rng.randn(b, t, v, scale=3.0), rng.integers(0, v, (b, t))
