"""Tests of Scaled dot-product attention."""

import torch

from etude.practice.compare import Tolerance
from etude.practice.suite import Rng, Suite

suite = Suite(tolerance=Tolerance(rtol=1e-4, atol=1e-5))


def qkv(rng: Rng, *lead: int, t: int, s: int, d: int, e: int, dtype=torch.float32):
    return (
        rng.randn(*lead, t, d, dtype=dtype, scale=2),
        rng.randn(*lead, s, d, dtype=dtype, scale=2),
        rng.randn(*lead, s, e, dtype=dtype),
    )


def open_mask(rng: Rng, *shape: int) -> torch.Tensor:
    """Return a random mask in which each query has at least one key, and misses one."""
    mask = rng.bools(shape, 0.6)
    mask[..., 0] = True
    mask[..., -1] = False
    return mask


@suite.visible("two queries, three keys, no mask")
def plain(rng: Rng):
    return qkv(rng, t=2, s=3, d=4, e=2)


@suite.visible("two queries, three keys, with a mask")
def masked(rng: Rng):
    return *qkv(rng, t=2, s=3, d=4, e=2), open_mask(rng, 2, 3)


@suite.hidden("one query", edge="T = 1", note="One query, as in decoding: the result keeps T = 1.")
def one_query(rng: Rng):
    return qkv(rng, 2, t=1, s=9, d=8, e=8)


@suite.hidden("one key", edge="S = 1", note="With one key its weight is 1, whatever the score is.")
def one_key(rng: Rng):
    return qkv(rng, 2, t=3, s=1, d=8, e=5)


@suite.hidden("vectors of one number", edge="d = 1", note="The scale is 1 / sqrt(d); here d is 1.")
def one_number(rng: Rng):
    return qkv(rng, t=4, s=5, d=1, e=3)


@suite.hidden(
    "batch and heads",
    concept="batched products",
    note="Only the last two dimensions take part in the products; the others stay as they are.",
)
def heads(rng: Rng):
    return qkv(rng, 2, 3, t=5, s=7, d=8, e=8)


@suite.hidden(
    "values wider than keys",
    note="The scale comes from d, the width of queries and keys, not from the width of the values.",
)
def wide_values(rng: Rng):
    return qkv(rng, 2, t=6, s=5, d=4, e=32)


@suite.hidden(
    "float64",
    concept="dtypes",
    tolerance=Tolerance(rtol=1e-10, atol=1e-12),
    note="Compute in the type of the arguments; float64 must not pass through float32.",
)
def double(rng: Rng):
    return *qkv(rng, 2, t=4, s=6, d=5, e=3, dtype=torch.float64), open_mask(rng, 4, 6)


@suite.hidden(
    "a mask shared by the heads",
    concept="broadcasting",
    note="The mask may have a dimension of size 1; let it broadcast.",
)
def shared_mask(rng: Rng):
    return *qkv(rng, 2, 3, t=5, s=7, d=8, e=4), open_mask(rng, 2, 1, 5, 7)


@suite.hidden(
    "queries without a key",
    concept="masking",
    note="Where a query may look at no key, softmax has nothing to work on; the result is zeros.",
)
def nothing_allowed(rng: Rng):
    mask = open_mask(rng, 6, 5)
    mask[rng.permutation(6)[:2]] = False
    return *qkv(rng, 2, t=6, s=5, d=8, e=4), mask


# Whole numbers times a power of two, and d = 16: these scores are exact in float32 in any order.
def huge(rng: Rng):
    return (
        rng.integers(-8, 9, (2, 6, 16)).float() * 64,
        rng.integers(-8, 9, (2, 7, 16)).float() * 64,
        rng.randn(2, 7, 4),
    )


@suite.hidden(
    "large scores",
    concept="stable softmax",
    note="exp of a large score is infinite; take the largest score of each row off first.",
)
def large(rng: Rng):
    return huge(rng)


@suite.hidden(
    "large scores with a mask",
    concept="masking",
    note="A masked score must lose against every other one, however small that is.",
)
def large_masked(rng: Rng):
    return *huge(rng), open_mask(rng, 6, 7)


@suite.hidden("views with other strides", concept="memory layout")
def strided(rng: Rng):
    query, key, value = qkv(rng, 4, 3, t=2, s=2, d=6, e=6)
    return query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)


@suite.generated("any sizes", times=3)
def sizes(rng: Rng):
    t, s, d, e = (rng.integer(2, 33) for _ in range(4))
    return *qkv(rng, 2, t=t, s=s, d=d, e=e), open_mask(rng, t, s)
