"""Tests of A cache of keys and values.

A negative size among the pieces is a piece that does not fit and must be refused. Where there is
one query more than the pieces have tokens, the driver attends with one too many at the end.
"""

import torch

from etude.practice.compare import Tolerance
from etude.practice.suite import Rng, Suite

suite = Suite(tolerance=Tolerance(rtol=1e-4, atol=1e-5))


def text(rng: Rng, capacity: int, pieces: list[int], shape=(2, 2, 8), dtype=torch.float32, more=0):
    batch, heads, width = shape
    count = max(sum(size for size in pieces if size > 0) + more, sum(map(abs, pieces)))
    keys, values = (rng.randn(batch, heads, count, width, dtype=dtype) for _ in range(2))
    tokens = sum(size for size in pieces if size > 0) + more
    return capacity, keys, values, rng.randn(batch, heads, tokens, width, dtype=dtype), pieces


@suite.visible("two tokens, then one")
def first(rng: Rng):
    return text(rng, 4, [2, 1], shape=(1, 1, 2))


@suite.visible("more tokens than the capacity", raises=ValueError)
def too_long_shown(rng: Rng):
    return text(rng, 3, [2, 2], shape=(1, 1, 2))


@suite.hidden(
    "one token at a time",
    edge="one token at a time",
    note="Each new token sees all tokens before it and itself.",
)
def steps(rng: Rng):
    return text(rng, 16, [1] * 9)


@suite.hidden("room for one token", edge="capacity 1", note="A cache for one token can be filled.")
def smallest(rng: Rng):
    return text(rng, 1, [1])


@suite.hidden(
    "a whole text at once",
    concept="causal attention",
    note="Queries of one piece must not see later keys of the same piece.",
)
def at_once(rng: Rng):
    return text(rng, 16, [12])


@suite.hidden(
    "a text, then single tokens",
    concept="causal attention",
    note="Query i of the last T stands at position N - T + i; align the mask with the last key.",
)
def prompt(rng: Rng):
    return text(rng, 32, [10, 1, 1, 1])


@suite.hidden(
    "several pieces",
    concept="causal attention",
    note="In a later piece, a query sees all earlier pieces and its own piece up to itself.",
)
def several(rng: Rng):
    return text(rng, 32, [3, 5, 2, 7])


@suite.hidden("filled to the last place", note="Exactly `capacity` tokens fit.")
def full(rng: Rng):
    return text(rng, 10, [4, 5, 1])


@suite.hidden(
    "a piece that does not fit",
    concept="capacity",
    note="A refused piece must leave nothing behind: neither in the length nor in the keys.",
)
def refused(rng: Rng):
    return text(rng, 8, [5, -4, 2, -2, 1])


@suite.hidden(
    "a first piece that does not fit", concept="capacity", note="A refused cache is still empty."
)
def refused_first(rng: Rng):
    return text(rng, 4, [-5, 3])


@suite.hidden("too long by one token", raises=ValueError, note="Check before anything is kept.")
def too_long(rng: Rng):
    return text(rng, 9, [4, 5, 1])


@suite.hidden(
    "more queries than tokens",
    raises=ValueError,
    note="A query without a token of its own has no position.",
)
def too_many_queries(rng: Rng):
    return text(rng, 16, [3, 2], more=1)


@suite.hidden(
    "a query to an empty cache", raises=ValueError, note="An empty cache has nothing to attend to."
)
def empty(rng: Rng):
    return text(rng, 4, [], more=1)


@suite.hidden(
    "float64",
    concept="dtypes",
    tolerance=Tolerance(rtol=1e-10, atol=1e-12),
    note="Keys and values are kept in their own type.",
)
def double(rng: Rng):
    return text(rng, 12, [4, 1, 3], dtype=torch.float64)


@suite.hidden("vectors of one number", note="With d = 1 the scale is 1.")
def narrow(rng: Rng):
    return text(rng, 12, [3, 3], shape=(1, 3, 1))


@suite.generated("any text", times=3)
def any_text(rng: Rng):
    pieces = [rng.integer(1, 8) for _ in range(rng.integer(2, 7))]
    return text(rng, sum(pieces) + rng.integer(0, 5), pieces, shape=(rng.integer(1, 4), 3, 16))
