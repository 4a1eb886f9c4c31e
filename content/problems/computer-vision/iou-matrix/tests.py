"""Tests of Overlap of boxes."""

import torch

from etude.practice.compare import Tolerance
from etude.practice.suite import Rng, Suite

suite = Suite(tolerance=Tolerance(rtol=1e-5, atol=1e-7))
HALF = Tolerance(rtol=1e-3, atol=1e-5)


def boxes(
    rng: Rng, count: int, side: float = 10.0, offset: float = 0.0, dtype=torch.float32
) -> torch.Tensor:
    """Return boxes with sides of a quarter of `side` or more, near to `offset`."""
    corner = rng.uniform(0, side, (count, 2), dtype=torch.float64)
    size = rng.uniform(side / 4, side, (count, 2), dtype=torch.float64)
    return (torch.cat([corner, corner + size], 1) + offset).to(dtype)


def whole(rng: Rng, count: int, low: int, high: int, dtype: torch.dtype) -> torch.Tensor:
    """Return boxes of whole numbers whose corners lie between `low` and `high`."""
    corners = rng.integers(low, high + 1, (count, 2, 2))
    return corners.sort(1).values.reshape(count, 4).to(dtype)


@suite.visible("two boxes and three")
def first(rng: Rng):
    return boxes(rng, 2), boxes(rng, 3)


@suite.visible("boxes without area among others")
def empty_shown(rng: Rng):
    a = boxes(rng, 2)
    a[1, 2] = a[1, 0]
    return a, torch.cat([a, boxes(rng, 1)])


@suite.hidden("no boxes in a", edge="N = 0", note="The result has the shape (0, M).")
def none(rng: Rng):
    return torch.empty(0, 4), boxes(rng, 3)


@suite.hidden("no boxes in b", edge="M = 0", note="The result has the shape (N, 0).")
def none_other(rng: Rng):
    return boxes(rng, 3), torch.empty(0, 4)


@suite.hidden("one box", edge="N = 1", note="One box still makes a table with one row.")
def one(rng: Rng):
    return boxes(rng, 1), boxes(rng, 5)


@suite.hidden("four boxes and four", note="With N = M = 4 check which dimension is which.")
def square(rng: Rng):
    return boxes(rng, 4), boxes(rng, 4)


@suite.hidden("the same boxes twice", note="A box has the IoU 1 with itself.")
def same(rng: Rng):
    a = boxes(rng, 6)
    return a, a[rng.permutation(6)]


@suite.hidden(
    "boxes that are apart in both directions",
    note="Two negative sides have a positive product. Cut each side off at 0 first.",
)
def apart(rng: Rng):
    a = boxes(rng, 5)
    return a, torch.cat([boxes(rng, 3) + 40, boxes(rng, 3) + torch.tensor([0.0, 30, 0, 30])])


@suite.hidden("boxes that touch", note="A common border has no area.")
def touching(rng: Rng):
    a = whole(rng, 4, 0, 9, torch.float32)
    width = a[:, 2] - a[:, 0]
    shifted = a.clone()
    shifted[:, 0] += width
    shifted[:, 2] += width
    return a, shifted


@suite.hidden(
    "boxes inside of others", note="The intersection with a box inside is that box itself."
)
def inside(rng: Rng):
    a = boxes(rng, 5)
    middle = (a[:, :2] + a[:, 2:]) / 2
    half = (a[:, 2:] - a[:, :2]) / 2 * rng.uniform(0.1, 0.9, (5, 1))
    return a, torch.cat([middle - half, middle + half], 1)


@suite.hidden(
    "only boxes without area",
    edge="boxes without area",
    note="0 divided by 0 is NaN. Where the union is 0, the result is 0.",
)
def points(rng: Rng):
    corner = boxes(rng, 4)[:, :2]
    a = torch.cat([corner, corner], 1)
    return a, a.clone()


@suite.hidden(
    "boxes that are turned inside out",
    edge="boxes without area",
    note="A box with two negative sides is empty, though their product is positive.",
)
def inverted(rng: Rng):
    a = boxes(rng, 6)
    a[0] = a[0, [2, 3, 0, 1]]
    a[2] = a[2, [2, 1, 0, 3]]
    a[4] = a[4, [0, 3, 2, 1]]
    return a, torch.cat([boxes(rng, 2), a])


@suite.hidden(
    "very small boxes",
    concept="numerical accuracy",
    note="A small number added to the union is not small beside an area of 1e-12.",
)
def small(rng: Rng):
    return boxes(rng, 5, side=4e-6), boxes(rng, 5, side=4e-6)


@suite.hidden(
    "very large boxes",
    concept="numerical accuracy",
    note="Areas of large boxes overflow in float32, and infinity by infinity is NaN.",
)
def large(rng: Rng):
    return boxes(rng, 4, side=3e29), boxes(rng, 5, side=3e29)


@suite.hidden(
    "half precision",
    concept="dtypes",
    note="float16 ends at 65504; a box of 300 by 300 has a larger area.",
    tolerance=HALF,
)
def half(rng: Rng):
    a, b = boxes(rng, 5, side=900.0), boxes(rng, 6, side=900.0)
    return a.to(torch.float16), b.to(torch.float16)


@suite.hidden(
    "unsigned bytes",
    concept="dtypes",
    note="Unsigned bytes wrap around below 0 and above 255. Convert before you subtract.",
)
def unsigned(rng: Rng):
    return whole(rng, 6, 0, 255, torch.uint8), whole(rng, 7, 100, 255, torch.uint8)


@suite.hidden(
    "int32 over its whole range",
    concept="dtypes",
    note="Neither sides nor areas of these boxes fit into 32 bits.",
)
def integers(rng: Rng):
    return tuple(whole(rng, count, -(2**31), 2**31 - 1, torch.int32) for count in (6, 5))


@suite.hidden(
    "int32 far from the origin",
    concept="dtypes",
    note="float32 does not hold all whole numbers above 16 million. Which type does?",
)
def far_integers(rng: Rng):
    return tuple(whole(rng, 5, 2**30, 2**30 + 40, torch.int32) for _ in range(2))


@suite.hidden(
    "int64 with large sides",
    concept="dtypes",
    note="The area of a box with sides of 2 to the 41 does not fit into 64 bits.",
)
def long_integers(rng: Rng):
    return tuple(whole(rng, 5, -(2**40), 2**40, torch.int64) for _ in range(2))


@suite.hidden(
    "float64",
    concept="dtypes",
    note="Keep the type, and its accuracy.",
    tolerance=Tolerance(rtol=1e-11, atol=1e-14),
)
def double(rng: Rng):
    return boxes(rng, 4, dtype=torch.float64), boxes(rng, 5, 1.0, 5.0, dtype=torch.float64)


@suite.hidden("transposed views", concept="memory layout")
def transposed(rng: Rng):
    return boxes(rng, 6).T.contiguous().T, boxes(rng, 10)[::2]


@suite.generated("any boxes", times=3)
def any_boxes(rng: Rng):
    return boxes(rng, rng.integer(2, 40), 20.0, -15.0), boxes(rng, rng.integer(2, 40), 8.0, -5.0)
