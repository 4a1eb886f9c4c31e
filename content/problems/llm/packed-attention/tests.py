"""Tests of Attention over packed sequences."""

import math

import torch

from etude.practice.compare import Tolerance
from etude.practice.suite import Rng, Suite

suite = Suite(tolerance=Tolerance(rtol=1e-4, atol=1e-5))


def case(
    rng: Rng,
    lengths: list[int],
    *,
    tail: int = 0,
    heads: int = 2,
    groups: int | None = None,
    width: int = 4,
    window: int | None = None,
    dtype: torch.dtype = torch.float32,
):
    tokens = sum(lengths) + tail
    query = rng.randn(tokens, heads, width, dtype=dtype)
    key, value = (rng.randn(tokens, groups or heads, width, dtype=dtype) for _ in range(2))
    bounds = torch.tensor([0, *lengths]).cumsum(0)
    return query, key, value, bounds, window


@suite.visible("two sequences")
def two(rng: Rng):
    return case(rng, [3, 2], heads=1, width=2)


@suite.visible("a window of two, and padding")
def window_shown(rng: Rng):
    return case(rng, [4, 1], tail=2, heads=1, width=2, window=2)


@suite.visible("a sequence that ends before it begins", raises=ValueError)
def falls_shown(rng: Rng):
    query, key, value, _, window = case(rng, [4])
    return query, key, value, torch.tensor([0, 3, 2]), window


@suite.hidden("one sequence", note="With one sequence this is ordinary causal attention.")
def one(rng: Rng):
    return case(rng, [12])


@suite.hidden("no tokens", edge="no tokens", note="Without tokens both results are empty.")
def nothing(rng: Rng):
    return case(rng, [])


@suite.hidden(
    "no sequences",
    edge="no sequences",
    note="With cu_seqlens of one number there is only padding.",
)
def all_padding(rng: Rng):
    return case(rng, [], tail=5)


@suite.hidden(
    "empty sequences",
    edge="an empty sequence",
    note="A sequence may be empty: two numbers of cu_seqlens are the same then.",
)
def empty(rng: Rng):
    return case(rng, [0, 3, 0, 0, 4, 0], tail=1)


@suite.hidden("one token each", edge="one token each", note="A token alone gets its own value.")
def singles(rng: Rng):
    return case(rng, [1] * 9)


@suite.hidden(
    "a tail of padding",
    edge="a tail of padding",
    note="Padding belongs to no sequence: its outputs and positions are 0.",
)
def tail(rng: Rng):
    return case(rng, [5, 3, 4], tail=6)


@suite.hidden(
    "padding of NaN",
    edge="a tail of padding",
    concept="isolation",
    note="0 times NaN is NaN. Leave padding out instead of giving it a weight of 0.",
)
def rubbish(rng: Rng):
    query, key, value, *more = case(rng, [4, 6], tail=3)
    for tensor in (query, key, value):
        tensor[-3:] = math.nan
    return query, key, value, *more


@suite.hidden(
    "a sequence of NaN",
    concept="isolation",
    note="What goes wrong in one text must stay there.",
)
def broken(rng: Rng):
    query, key, value, *more = case(rng, [4, 5, 6])
    for tensor in (query, key, value):
        tensor[4:9] = math.nan
    return query, key, value, *more


@suite.hidden(
    "keys that are large elsewhere",
    concept="isolation",
    note="No finite number is low enough to hide a large score; do not see other sequences.",
)
def loud(rng: Rng):
    query, key, value, *more = case(rng, [4, 5, 6])
    key[4:9] *= 1e15
    query[:4] *= 1e3
    return query, key, value, *more


@suite.hidden(
    "a sliding window",
    concept="sliding window",
    note="The window counts the token itself, and never reaches into the sequence before.",
)
def window(rng: Rng):
    return case(rng, [9, 2, 7], window=3)


@suite.hidden("a window of one", concept="sliding window", note="A window of 1 holds the token.")
def window_of_one(rng: Rng):
    return case(rng, [4, 5], window=1)


@suite.hidden("a window wider than all", concept="sliding window", note="It takes nothing away.")
def wide_window(rng: Rng):
    return case(rng, [6, 3, 8], window=rng.integer(8, 500))


@suite.hidden(
    "many short sequences",
    concept="memory",
    note="A tensor of N x N elements is many times as large as the work that is to be done.",
)
def many(rng: Rng):
    return case(rng, rng.integers(1, 20, (60,)).tolist(), tail=3)


@suite.hidden(
    "a long sequence among short ones",
    concept="memory",
    note="Padding all sequences to the longest one makes a tensor of S x m x m elements.",
)
def uneven(rng: Rng):
    lengths = [3] * 40
    lengths[rng.integer(0, 40)] = 40
    return case(rng, lengths)


@suite.hidden(
    "fewer key heads than heads",
    concept="grouped-query attention",
    note="Neighbouring heads share a key head: with H = 6 and G = 2, heads 0 to 2 use head 0.",
)
def grouped(rng: Rng):
    return case(rng, [5, 7, 2], heads=6, groups=2)


@suite.hidden(
    "one key head for all",
    concept="grouped-query attention",
    note="With G = 1 all heads use the same keys.",
)
def multi_query(rng: Rng):
    return case(rng, [5, 4], heads=4, groups=1, window=3)


@suite.hidden(
    "large scores",
    concept="numerical stability",
    note="exp of a large score is infinite; a softmax subtracts the largest one first.",
)
def large(rng: Rng):
    query, key, *more = case(rng, [5, 6], width=16)
    return query * 40, key * 40, *more


@suite.hidden("a width of one", note="The scale is one over the root of D, here 1.")
def narrow(rng: Rng):
    return case(rng, [6, 4], width=1, heads=3)


@suite.hidden("a large width", note="Divide scores by the root of D.")
def broad(rng: Rng):
    return case(rng, [6, 4], width=64)


@suite.hidden(
    "bfloat16",
    concept="precision",
    tolerance=Tolerance(rtol=0.006, atol=4e-4),
    note="Compute in float32 and round once, at the end.",
)
def half(rng: Rng):
    return case(rng, [70, 60], heads=4, width=32, dtype=torch.bfloat16)


@suite.hidden(
    "float64",
    concept="precision",
    tolerance=Tolerance(rtol=1e-10, atol=1e-12),
    note="Nothing may pass through float32.",
)
def double(rng: Rng):
    return case(rng, [8, 9], tail=1, dtype=torch.float64, window=4)


@suite.hidden("32-bit bounds", concept="dtypes", note="Positions are of int64 all the same.")
def short_integers(rng: Rng):
    query, key, value, bounds, window = case(rng, [3, 5])
    return query, key, value, bounds.int(), window


@suite.hidden("transposed views", concept="memory layout")
def strided(rng: Rng):
    *tensors, bounds, window = case(rng, [4, 6], heads=3)
    return *(t.transpose(0, 1).contiguous().transpose(0, 1) for t in tensors), bounds, window


@suite.hidden("bounds that do not start with 0", raises=ValueError, note="The first token is 0.")
def late(rng: Rng):
    query, key, value, _, window = case(rng, [6])
    return query, key, value, torch.tensor([1, 4, 6]), window


@suite.hidden("bounds beyond the tokens", raises=ValueError, note="A slice would cut off quietly.")
def beyond(rng: Rng):
    query, key, value, _, window = case(rng, [6])
    return query, key, value, torch.tensor([0, 4, 7]), window


@suite.hidden("a window of zero", raises=ValueError, note="A window holds a token or more.")
def no_window(rng: Rng):
    return case(rng, [3, 3], window=0)


@suite.generated("any lengths", times=3)
def any_lengths(rng: Rng):
    lengths = rng.integers(0, 30, (rng.integer(2, 20),)).tolist()
    groups = rng.integer(1, 4)
    return case(
        rng,
        lengths,
        tail=rng.integer(0, 6),
        heads=groups * rng.integer(1, 3),
        groups=groups,
        width=rng.integer(1, 16),
        window=rng.choice([None, 1, 5, 12]),
    )
