"""Tests of Merge an adapter, and take it out again."""

import math

import torch

from etude.practice.compare import Tolerance
from etude.practice.suite import Rng, Suite

suite = Suite(tolerance=Tolerance(rtol=1e-5, atol=1e-5))
BRAIN = Tolerance(rtol=0.008, atol=1e-6)


def case(
    rng: Rng,
    m: int = 5,
    n: int = 4,
    r: int = 2,
    *,
    alpha: float = 3,
    stabilized: bool = False,
    unmerge: bool = False,
    in_place: bool = False,
    dtype: torch.dtype = torch.float32,
    factors: torch.dtype | None = None,
):
    weight = rng.randn(m, n, dtype=dtype)
    a, b = rng.randn(r, n, dtype=factors or dtype), rng.randn(m, r, dtype=factors or dtype)
    return weight, a, b, alpha, stabilized, unmerge, in_place


@suite.visible("a new tensor")
def merged(rng: Rng):
    return case(rng, 3, 2)


@suite.visible("in place")
def in_place_shown(rng: Rng):
    return case(rng, 2, 3, in_place=True)


@suite.visible("factors that do not fit", raises=ValueError)
def misfit_shown(rng: Rng):
    weight, a, b, *more = case(rng)
    return weight, b, a, *more


@suite.hidden("rank one", edge="r = 1", note="With r = 1 both scales are alpha.")
def rank_one(rng: Rng):
    return case(rng, r=1, stabilized=True)


@suite.hidden("one by one", edge="one by one", note="A weight of one number is a matrix, too.")
def single(rng: Rng):
    return case(rng, 1, 1, 3)


@suite.hidden(
    "the scale of a high rank",
    concept="scale",
    note="alpha is divided by the rank, the number of rows of A.",
)
def high_rank(rng: Rng):
    return case(rng, 12, 9, 16, alpha=32)


@suite.hidden(
    "rank-stabilised",
    concept="scale",
    note="With rank_stabilized, alpha is divided by the square root of the rank.",
)
def stabilized(rng: Rng):
    return case(rng, 7, 8, 9, alpha=2, stabilized=True)


@suite.hidden("taken out", note="With unmerge the product is subtracted.")
def taken_out(rng: Rng):
    return case(rng, 6, 8, 4, unmerge=True)


@suite.hidden("taken out in place, rank-stabilised", note="The switches go together.")
def all_switches(rng: Rng):
    return case(rng, 6, 8, 4, alpha=1.5, stabilized=True, unmerge=True, in_place=True)


@suite.hidden("alpha is 0", note="The result is a new tensor also where nothing is added.")
def no_alpha(rng: Rng):
    return case(rng, alpha=0)


@suite.hidden(
    "bfloat16 with factors of float32",
    concept="precision",
    tolerance=BRAIN,
    note="The weight goes up to float32; the result comes down once.",
)
def brain(rng: Rng):
    return case(rng, 20, 30, 4, alpha=0.1, dtype=torch.bfloat16, factors=torch.float32)


@suite.hidden(
    "bfloat16 where weight and product nearly cancel",
    concept="precision",
    tolerance=BRAIN,
    note="A product rounded to bfloat16 has lost what remains here. Round once, at the end.",
)
def cancels(rng: Rng):
    _, a, b, *more = case(rng, 16, 16, 2, dtype=torch.bfloat16)
    # Products that bfloat16 cannot hold, and float32 can.
    weight = -(b.double() @ a.double() * 1.5).bfloat16()
    return weight, a, b, *more


@suite.hidden(
    "bfloat16 in place",
    concept="precision",
    tolerance=BRAIN,
    note="The memory is the old one, and so is the type.",
)
def brain_in_place(rng: Rng):
    _, a, b, *more = case(
        rng, 16, 16, 2, in_place=True, dtype=torch.bfloat16, factors=torch.float32
    )
    weight = -(b.double() @ a.double() * 1.5).bfloat16()
    return weight, a, b, *more


@suite.hidden(
    "float16 whose product is too large on its own",
    concept="precision",
    tolerance=Tolerance(rtol=0.001, atol=1e-6),
    note="The product overflows float16, the sum does not.",
)
def half(rng: Rng):
    ones = torch.ones(4, 4, dtype=torch.float16)
    weight = ones * -60000 + rng.integers(0, 8, (4, 4)).half() * 32
    return weight, ones * 160, ones * 110, 4, False, False, False


@suite.hidden(
    "float32 with factors of bfloat16",
    concept="precision",
    note="The type of the weight decides, not that of the factors.",
)
def brain_factors(rng: Rng):
    return case(rng, 8, 9, 4, factors=torch.bfloat16)


@suite.hidden(
    "float64 with factors of float32",
    concept="precision",
    tolerance=Tolerance(rtol=1e-12, atol=1e-12),
    note="Convert the factors before they are multiplied.",
)
def double(rng: Rng):
    return case(rng, 10, 12, 8, dtype=torch.float64, factors=torch.float32)


@suite.hidden(
    "a transposed weight in place",
    concept="memory layout",
    note="Write into the memory that is there, whatever its order.",
)
def strided(rng: Rng):
    weight, a, b, *more = case(rng, 7, 5, 3, in_place=True)
    return weight.T.contiguous().T, a.T.contiguous().T, b.T.contiguous().T, *more


@suite.hidden(
    "too large for float16, in place",
    concept="refusals",
    note="Look at the numbers in the type of the weight, and before you write them.",
)
def overflow(rng: Rng):
    weight = torch.full((3, 3), 60000.0, dtype=torch.float16)
    return weight, torch.ones(2, 3) * 100, torch.ones(3, 2) * 100, 1, False, False, True


@suite.hidden(
    "an infinity in a factor, in place",
    concept="refusals",
    note="A refused merge leaves the weight as it was.",
)
def infinite_in_place(rng: Rng):
    weight, a, b, *more = case(rng, in_place=True)
    a[rng.integer(0, 2), rng.integer(0, 4)] = math.inf
    return weight, a, b, *more


@suite.hidden("NaN in a factor", concept="refusals", raises=ValueError, note="NaN spreads.")
def broken(rng: Rng):
    weight, a, b, *more = case(rng)
    b[rng.integer(0, 5), rng.integer(0, 2)] = math.nan
    return weight, a, b, *more


@suite.hidden(
    "an infinity in the weight",
    concept="refusals",
    raises=ValueError,
    note="It does not matter where it comes from.",
)
def infinite_weight(rng: Rng):
    weight, *more = case(rng)
    weight[1, 1] = -math.inf
    return weight, *more


@suite.hidden(
    "a B of one row",
    concept="shapes",
    raises=ValueError,
    note="The product of one row would be broadcast over all rows of the weight.",
)
def one_row(rng: Rng):
    weight, a, b, *more = case(rng)
    return weight, a, b[:1], *more


@suite.hidden("an A of one column", concept="shapes", raises=ValueError, note="Nor over columns.")
def one_column(rng: Rng):
    weight, a, b, *more = case(rng)
    return weight, a[:, :1], b, *more


@suite.hidden("ranks that differ", concept="shapes", raises=ValueError, note="r is the same.")
def ranks(rng: Rng):
    weight, a, _, *more = case(rng)
    return weight, a, rng.randn(5, 3), *more


@suite.generated("any sizes", times=4)
def sizes(rng: Rng):
    switches = {name: rng.integer(0, 2) == 1 for name in ("stabilized", "unmerge", "in_place")}
    m, n, r = rng.integer(1, 60), rng.integer(1, 60), rng.integer(1, 20)
    return case(rng, m, n, r, alpha=rng.number(0.1, 20), **switches)
