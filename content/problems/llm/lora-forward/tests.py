"""Tests of LoRA forward pass."""

import torch

from etude.practice.compare import Tolerance
from etude.practice.suite import Rng, Suite

suite = Suite(tolerance=Tolerance(rtol=1e-4, atol=1e-4))
HALF = Tolerance(rtol=0.016, atol=0.03)


def case(
    rng: Rng,
    *rows: int,
    n: int = 6,
    m: int = 5,
    r: int = 2,
    alpha: float = 3,
    dtype: torch.dtype = torch.float32,
    adapter: torch.dtype | None = None,
):
    scale = n**-0.5
    return (
        rng.randn(*rows, n, dtype=dtype),
        rng.randn(m, n, dtype=dtype, scale=scale),
        rng.randn(r, n, dtype=adapter or dtype, scale=scale),
        rng.randn(m, r, dtype=adapter or dtype),
        alpha,
    )


@suite.visible("three rows")
def three(rng: Rng):
    return case(rng, 3, n=4, m=3)


@suite.visible("bfloat16 with an adapter of float32", tolerance=HALF)
def mixed_shown(rng: Rng):
    return case(rng, 2, n=4, m=3, dtype=torch.bfloat16, adapter=torch.float32)


@suite.hidden(
    "rank one", edge="r = 1", note="With r = 1 both factors are vectors of two dimensions."
)
def rank_one(rng: Rng):
    return case(rng, 4, r=1, alpha=0.5)


@suite.hidden(
    "one row in a batch",
    edge="one row",
    concept="low-rank products",
    note="For a single row, B A alone costs r times as much as the whole layer.",
)
def one_row(rng: Rng):
    return case(rng, 1, n=500, m=600, r=16, alpha=16)


@suite.hidden("one row without a batch", edge="one row", note="x may be a vector of shape (n,).")
def vector(rng: Rng):
    return case(rng, n=9, m=7)


@suite.hidden("no rows", edge="no rows", note="Without rows the result has the shape (0, m).")
def no_rows(rng: Rng):
    return case(rng, 0)


@suite.hidden("a batch of sequences", note="Every dimension but the last is kept.")
def sequences(rng: Rng):
    return case(rng, 2, 7, n=12, m=8, r=4)


@suite.hidden(
    "a large alpha",
    concept="scale",
    note="The correction is multiplied by alpha divided by the rank, r = len(a).",
)
def scaled(rng: Rng):
    return case(rng, 5, n=16, m=9, r=8, alpha=64)


@suite.hidden("alpha is 0", concept="scale", note="With alpha = 0 the weight alone remains.")
def no_alpha(rng: Rng):
    return case(rng, 5, alpha=0)


@suite.hidden(
    "an adapter before its first step",
    note="B starts as zeros, and then the layer gives what it gave without an adapter.",
)
def untrained(rng: Rng):
    x, weight, a, b, alpha = case(rng, 5, r=3)
    return x, weight, a, torch.zeros_like(b), alpha


@suite.hidden("a square weight", note="A has the shape (r, n), B the shape (m, r).")
def square(rng: Rng):
    return case(rng, 4, n=6, m=6, r=6, alpha=6)


@suite.hidden("a rank above both sizes", note="Nothing says that r is small.")
def large_rank(rng: Rng):
    return case(rng, 4, n=3, m=2, r=12, alpha=5)


@suite.hidden("large and thin", concept="low-rank products", note="First down to r, then up to m.")
def large(rng: Rng):
    return case(rng, 20, n=600, m=600, r=4, alpha=8)


@suite.hidden(
    "a bfloat16 layer, an adapter of float32",
    concept="precision",
    tolerance=HALF,
    note="x goes up to the adapter's type; the adapter does not come down to that of x.",
)
def mixed(rng: Rng):
    x, weight, a, b, alpha = case(
        rng, 2, 9, n=40, m=20, r=2, dtype=torch.bfloat16, adapter=torch.float32
    )
    # Two directions that are nearly the same, of which the difference counts.
    a[1] = a[0] + 1e-3 * a[1]
    b[:, 1] = -b[:, 0]
    return x, weight, a, 1000 * b, alpha


@suite.hidden(
    "a correction that nearly cancels the layer",
    concept="precision",
    tolerance=Tolerance(rtol=0.01, atol=1e-5),
    note="The sum is taken in float32: a correction rounded before it has lost what remains.",
)
def cancels(rng: Rng):
    _, _, a, b, alpha = case(rng, n=12, m=10, r=3)
    weight = -(alpha / 3 * (b.double() @ a.double())).bfloat16()
    return torch.eye(12, dtype=torch.bfloat16), weight, a, b, alpha


@suite.hidden(
    "all in bfloat16",
    concept="precision",
    tolerance=Tolerance(rtol=0.03, atol=0.06),
    note="The result has the type of x.",
)
def half(rng: Rng):
    return case(rng, 6, n=20, m=10, dtype=torch.bfloat16)


@suite.hidden(
    "float64",
    concept="precision",
    tolerance=Tolerance(rtol=1e-11, atol=1e-12),
    note="Nothing may pass through float32.",
)
def double(rng: Rng):
    return case(rng, 6, n=20, m=10, dtype=torch.float64)


@suite.hidden("transposed views", concept="memory layout")
def strided(rng: Rng):
    x, weight, a, b, alpha = case(rng, 4, n=7, m=5)
    return *(t.T.contiguous().T for t in (x, weight, a, b)), alpha


@suite.generated("any sizes", times=3)
def sizes(rng: Rng):
    n, m, r = rng.integer(2, 100), rng.integer(2, 100), rng.integer(1, 20)
    return case(rng, rng.integer(1, 4), rng.integer(1, 9), n=n, m=m, r=r, alpha=rng.number(0.1, 9))
