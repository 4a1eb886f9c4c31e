"""Tests of A dataset of token windows."""

import torch

from etude.practice.suite import Rng, Suite

suite = Suite()


@suite.visible("six tokens, windows of three, stride two")
def six(rng: Rng):
    return rng.integers(0, 100, (6,)), 3, 2, [0, 1]


@suite.visible("windows side by side")
def side_by_side(rng: Rng):
    return rng.integers(0, 100, (12,)), 4, 4, [1, 0]


@suite.hidden(
    "exactly one window",
    edge="one window",
    note="L + 1 tokens are enough for one window: the last target is the last token.",
)
def one(rng: Rng):
    return rng.integers(0, 100, (6,)), 5, 3, [0, -1]


@suite.hidden(
    "as many tokens as the window is long",
    edge="fewer tokens than a window needs",
    note="The last target is missing, so there is no whole window.",
)
def short_by_one(rng: Rng):
    return rng.integers(0, 100, (5,)), 5, 1, []


@suite.hidden(
    "far too few tokens",
    edge="fewer tokens than a window needs",
    note="A length is never negative.",
)
def far_too_few(rng: Rng):
    return rng.integers(0, 100, (2,)), 9, 2, []


@suite.hidden(
    "no tokens at all",
    edge="fewer tokens than a window needs",
    note="No tokens make an empty dataset, not an error.",
)
def nothing(rng: Rng):
    return torch.empty(0, dtype=torch.int64), 1, 1, []


@suite.hidden(
    "windows of one token", edge="length = 1", note="Items keep their dimension: shape (1,)."
)
def pairs(rng: Rng):
    return rng.integers(0, 100, (7,)), 1, 1, [0, 5]


@suite.hidden(
    "tokens left over at the end",
    note="Tokens that do not fill a whole window are left out.",
)
def left_over(rng: Rng):
    return rng.integers(0, 100, (17,)), 4, 5, [0, 1, 2]


@suite.hidden("a stride longer than the window", note="Tokens between two windows are skipped.")
def gaps(rng: Rng):
    return rng.integers(0, 100, (23,)), 2, 7, [0, 1, 2]


@suite.hidden(
    "negative indices",
    concept="indexing",
    note="A negative index counts from the end, as in a list.",
)
def negative(rng: Rng):
    return rng.integers(0, 100, (20,)), 3, 3, [-1, -2, -5]


@suite.hidden(
    "an index beyond the end",
    raises=IndexError,
    concept="indexing",
    note="A slice beyond the end of a tensor is silently short or empty. Check the index.",
)
def beyond(rng: Rng):
    return rng.integers(0, 100, (20,)), 3, 3, [6]


@suite.hidden(
    "a negative index beyond the beginning",
    raises=IndexError,
    concept="indexing",
    note="There is a smallest negative index too.",
)
def before(rng: Rng):
    return rng.integers(0, 100, (20,)), 3, 3, [-7]


@suite.hidden(
    "index 0 of an empty dataset",
    raises=IndexError,
    concept="indexing",
    note="An empty dataset has no item 0.",
)
def first_of_none(rng: Rng):
    return rng.integers(0, 100, (3,)), 4, 1, [0]


@suite.hidden(
    "a stride of 0", raises=ValueError, note="Windows that never move on make no dataset."
)
def stuck(rng: Rng):
    return rng.integers(0, 100, (9,)), 2, 0, []


@suite.hidden("a length of 0", raises=ValueError, note="A window holds at least one token.")
def no_length(rng: Rng):
    return rng.integers(0, 100, (9,)), 0, 2, []


@suite.hidden("int32 tokens", concept="dtypes", note="Keep the type of the tokens.")
def narrow(rng: Rng):
    return rng.integers(0, 100, (11,), dtype=torch.int32), 3, 2, [0, -1]


@suite.hidden("tokens that are a column of a table", concept="memory layout")
def column(rng: Rng):
    return rng.integers(0, 100, (15, 2)).T[1], 4, 3, [0, 1]


@suite.generated("any sizes", times=3)
def sizes(rng: Rng):
    length, stride = rng.integer(1, 9), rng.integer(1, 9)
    return rng.integers(0, 1000, (rng.integer(30, 90),)), length, stride, [0, 1, -1]
