"""Tests of Quantised factors."""

import torch

from etude.practice.compare import Tolerance
from etude.practice.suite import Rng, Suite

suite = Suite(tolerance=Tolerance(rtol=1e-4, atol=1e-6))


def clear(factor: torch.Tensor, bits: int, dim: int) -> torch.Tensor:
    """Return `factor` with a 0 for each number that would be close to a tie."""
    wide, last = factor.double(), 2 ** (bits - 1) - 1
    steps = wide * last / wide.abs().amax(dim, keepdim=True).clamp(min=1e-300)
    return factor.masked_fill((steps % 1 - 0.5).abs() < 2e-3, 0.0)


def case(
    rng: Rng,
    rows: int = 3,
    n: int = 6,
    m: int = 5,
    r: int = 2,
    bits: int = 4,
    *,
    dtype: torch.dtype = torch.float32,
    spread: float = 0.0,
):
    """Return arguments; components differ by up to 10 to the power of `spread`."""
    powers = 10 ** rng.uniform(-spread, spread, (r,))
    a = clear(rng.randn(r, n) * powers[:, None], bits, 1)
    b = clear(rng.randn(m, r) / powers, bits, 0)
    return rng.randn(rows, n, dtype=dtype), a, b, bits


@suite.visible("two components, four bits")
def two(rng: Rng):
    return case(rng, 2, 4, 3)


@suite.visible("one bit", raises=ValueError)
def one_bit_shown(rng: Rng):
    x, a, b, _ = case(rng)
    return x, a, b, 1


@suite.hidden("rank one", edge="r = 1", note="With r = 1 there is one scale for all.")
def rank_one(rng: Rng):
    return case(rng, r=1)


@suite.hidden("no rows", edge="no rows", note="Without rows y has the shape (0, m).")
def no_rows(rng: Rng):
    return case(rng, 0, 40, 50, 3, 8)


@suite.hidden(
    "a component of zeros",
    edge="a component of zeros",
    note="Where all numbers of a column are 0, so are its codes and its scale: no 0 / 0.",
)
def zero_component(rng: Rng):
    x, a, b, bits = case(rng, r=4)
    b[:, 1] = 0
    a[2] = 0
    return x, a, b, bits


@suite.hidden(
    "an untrained adapter",
    edge="an untrained adapter",
    note="B is all zeros before the first step. The error of nothing is 0.",
)
def untrained(rng: Rng):
    x, a, b, bits = case(rng, r=3)
    return x, a, torch.zeros_like(b), bits


@suite.hidden("eight bits", note="With 8 bits codes go from -127 to 127, and errors are small.")
def eight(rng: Rng):
    return case(rng, 4, 60, 50, 4, 8)


@suite.hidden("two bits", note="With 2 bits the codes are -1, 0 and 1.")
def two_bits(rng: Rng):
    return case(rng, 4, 20, 30, 3, 2)


@suite.hidden(
    "ties",
    concept="rounding",
    note="A tie goes to the even neighbour, whichever direction this is.",
)
def ties(rng: Rng):
    step = torch.cat([torch.arange(-6.5, 7), torch.tensor([7.0])])
    a = torch.stack([step[rng.permutation(15)] * 2.0 ** rng.integer(-5, 6) for _ in range(2)])
    b = torch.stack([step[rng.permutation(15)] * 2.0 ** rng.integer(-5, 6) for _ in range(2)], 1)
    return rng.randn(2, 15), a, b, 4


@suite.hidden(
    "components of different size",
    concept="scales",
    note="Each component has scales of its own; one for the whole factor loses the small ones.",
)
def different(rng: Rng):
    return case(rng, 4, 30, 40, 6, 8, spread=3.0)


@suite.hidden(
    "large in one factor, small in the other",
    concept="scales",
    note="Only the product of a component's two scales matters.",
)
def unbalanced(rng: Rng):
    x, a, b, bits = case(rng, 4, 12, 9, 3, 6)
    factor = 2.0**30
    return x, a * factor, b / factor, bits


@suite.hidden(
    "a large layer",
    concept="memory",
    note="Multiply x by the thin factors one after the other.",
)
def large(rng: Rng):
    return case(rng, 3, 600, 500, 8, 8)


@suite.hidden(
    "a large layer, few bits",
    concept="memory",
    note="The norm of a product of thin matrices can be had from small matrices.",
)
def large_few(rng: Rng):
    return case(rng, 1, 500, 600, 2, 3)


@suite.hidden(
    "a small error in a large layer",
    concept="numerical cancellation",
    note="A difference of two large squares loses its digits: keep to float64.",
)
def small_error(rng: Rng):
    # Nearly all numbers lie on the grid.
    x, a, b, bits = case(rng, 2, 400, 400, 4, 8)
    a, b = ((t / t.abs().max() * 127).round().clamp(-126, 126) for t in (a, b))
    a[:, 0] = 127
    b[0] = 127
    a[:, 1] = a[:, 1] + 0.375
    a[:, 2:12] += 0.25
    return x, a, b, bits


@suite.hidden("a rank above both sizes", note="Nothing says that r is small.")
def high_rank(rng: Rng):
    return case(rng, 3, 5, 4, 16, 5)


@suite.hidden("one by one", note="Its error is 0; a sum of squares that cancels may be negative.")
def single(rng: Rng):
    return case(rng, 2, 1, 1, 1, 4)


@suite.hidden(
    "bfloat16",
    concept="precision",
    tolerance=Tolerance(rtol=0.006, atol=0.001),
    note="Codes are exact in bfloat16, but sums of their products are not.",
)
def half(rng: Rng):
    return case(rng, 5, 100, 20, 3, 8, dtype=torch.bfloat16)


@suite.hidden(
    "float64",
    concept="precision",
    note="y has the type of x.",
)
def double(rng: Rng):
    return case(rng, 5, 20, 20, 3, 8, dtype=torch.float64)


@suite.hidden("transposed views", concept="memory layout")
def strided(rng: Rng):
    x, a, b, bits = case(rng, 4, 9, 7, 3)
    return x.T.contiguous().T, a.T.contiguous().T, b.T.contiguous().T, bits


@suite.hidden("nine bits", raises=ValueError, note="Nine bits do not fit into int8.")
def nine(rng: Rng):
    x, a, b, _ = case(rng)
    return x, a, b, 9


@suite.generated("any sizes", times=3)
def sizes(rng: Rng):
    n, m, r = rng.integer(2, 80), rng.integer(2, 80), rng.integer(1, 10)
    return case(rng, rng.integer(1, 9), n, m, r, rng.integer(2, 9), spread=1.0)
