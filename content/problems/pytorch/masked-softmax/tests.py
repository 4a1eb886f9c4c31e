"""Tests of Masked softmax."""

import math

import torch

from etude.practice.compare import Tolerance
from etude.practice.suite import Rng, Suite

suite = Suite(tolerance=Tolerance(rtol=1e-4, atol=1e-6))


def case(rng: Rng, scores: torch.Tensor, mask: torch.Tensor):
    # The last argument weighs the answer for the gradient that the driver asks for.
    return scores, mask, rng.randn(*scores.shape, dtype=scores.dtype)


def ragged(rng: Rng, rows: int, width: int) -> torch.Tensor:
    """Return a mask with at least one place in each row."""
    mask = rng.bools((rows, width))
    mask[torch.arange(rows), rng.integers(0, width, (rows,))] = True
    return mask


@suite.visible("some places hidden")
def some(rng: Rng):
    mask = torch.tensor([[True, True, False, True], [False, True, True, False]])
    return case(rng, rng.randn(2, 4), mask)


@suite.visible("a row that sees nothing")
def nothing_shown(rng: Rng):
    mask = torch.tensor([[True, True, False], [False, False, False]])
    return case(rng, rng.randn(2, 3), mask)


@suite.hidden(
    "all rows wholly masked",
    edge="a row wholly masked",
    note="A row that sees nothing is all zeros, and so is its gradient.",
)
def all_hidden(rng: Rng):
    return case(rng, rng.randn(3, 4), torch.zeros(3, 4, dtype=torch.bool))


@suite.hidden(
    "wholly masked rows among others",
    edge="a row wholly masked",
    note="A NaN that is replaced afterwards is still there on the way back.",
)
def mixed(rng: Rng):
    mask = ragged(rng, 6, 5)
    mask[1] = mask[4] = False
    return case(rng, rng.randn(6, 5), mask)


@suite.hidden(
    "one place allowed in each row",
    edge="one place allowed",
    note="A single place gets the whole weight of 1.",
)
def single(rng: Rng):
    return case(rng, rng.randn(5, 5), torch.eye(5, dtype=torch.bool)[rng.permutation(5)])


@suite.hidden("rows without places", edge="no places", note="The result has the shape (N, 0).")
def no_places(rng: Rng):
    return case(rng, torch.empty(3, 0), torch.empty(3, 0, dtype=torch.bool))


@suite.hidden("no rows", edge="no rows", note="The result has the shape (0, M).")
def no_rows(rng: Rng):
    return case(rng, torch.empty(0, 4), torch.empty(0, 4, dtype=torch.bool))


@suite.hidden("nothing masked", note="Without hidden places this is the plain softmax.")
def all_seen(rng: Rng):
    return case(rng, rng.randn(4, 6), torch.ones(4, 6, dtype=torch.bool))


@suite.hidden(
    "large scores",
    concept="numerical stability",
    note="The exponential of a large number is infinite. Subtract the maximum first.",
)
def large(rng: Rng):
    return case(rng, rng.randn(5, 6, scale=1000.0), ragged(rng, 5, 6))


@suite.hidden(
    "seen scores that are very negative",
    concept="numerical stability",
    note="No finite number is low enough to hide a place for certain.",
)
def very_negative(rng: Rng):
    mask = ragged(rng, 5, 6)
    mask[:, 0], mask[:, 1] = False, True
    return case(rng, rng.randn(5, 6) - 1e30, mask)


@suite.hidden(
    "a hidden score that is far larger than all others",
    concept="numerical stability",
    note="Hide places before the softmax: afterwards the seen ones have vanished.",
)
def hidden_large(rng: Rng):
    scores, mask = rng.randn(4, 5), ragged(rng, 4, 5)
    mask[:, 2], mask[:, 3] = False, True
    scores[:, 2] = 500.0
    return case(rng, scores, mask)


@suite.hidden(
    "NaN and infinity at hidden places",
    concept="numerical stability",
    note="0 times NaN is NaN: fill hidden places instead of multiplying them.",
)
def rubbish(rng: Rng):
    scores, mask = rng.randn(4, 6), ragged(rng, 4, 6)
    mask[:, 1] = mask[:, 3] = mask[:, 4] = False
    mask[:, 0] = True
    mask[3] = False
    scores[:, 1], scores[:, 3], scores[:, 4] = math.nan, math.inf, -math.inf
    return case(rng, scores, mask)


@suite.hidden(
    "one mask for a batch of heads",
    concept="broadcasting",
    note="The mask may have dimensions of size 1. Bring it to the shape of the scores.",
)
def heads(rng: Rng):
    mask = rng.bools((2, 1, 1, 5))
    mask[0, ..., 2], mask[1] = True, False
    return case(rng, rng.randn(2, 3, 4, 5), mask)


@suite.hidden(
    "a causal mask with fewer dimensions",
    concept="broadcasting",
    note="The mask may have fewer dimensions than the scores.",
)
def causal(rng: Rng):
    return case(rng, rng.randn(2, 5, 5), torch.ones(5, 5, dtype=torch.bool).tril())


@suite.hidden(
    "a mask with one column",
    concept="broadcasting",
    note="A mask of shape (N, 1) says for a whole row whether it sees anything.",
)
def one_column(rng: Rng):
    return case(rng, rng.randn(3, 4), torch.tensor([[True], [False], [True]]))


@suite.hidden("one dimension", note="A single row needs no other dimensions.")
def vector(rng: Rng):
    return case(rng, rng.randn(6), torch.tensor([True, False, True, True, False, True]))


@suite.hidden(
    "float64", concept="dtypes", note="Keep the type.", tolerance=Tolerance(rtol=1e-11, atol=1e-13)
)
def double(rng: Rng):
    return case(rng, rng.randn(4, 5, dtype=torch.float64), ragged(rng, 4, 5))


@suite.hidden("transposed views", concept="memory layout")
def transposed(rng: Rng):
    return case(rng, rng.randn(6, 4).T, ragged(rng, 6, 4).T | (torch.arange(6) == 2))


@suite.generated("any sizes", times=2)
def sizes(rng: Rng):
    rows, width = rng.integer(2, 12), rng.integer(2, 20)
    return case(rng, rng.randn(rows, width, scale=3.0), rng.bools((rows, width), 0.3))
