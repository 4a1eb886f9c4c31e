"""Tests of A homography from point pairs."""

import math

import torch

from etude.practice.compare import Tolerance
from etude.practice.suite import Rng, Suite

# Single entries of a unit matrix may be very small where coordinates are large: they count, too.
suite = Suite(tolerance=Tolerance(rtol=1e-7, atol=1e-12))


def apply(matrix: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    mapped = torch.cat([points, torch.ones(len(points), 1, dtype=torch.float64)], 1) @ matrix.T
    return mapped[:, :2] / mapped[:, 2:]


def square(rng: Rng, count: int) -> torch.Tensor:
    """Return points in the square from -1 to 1; the first four lie near to its corners."""
    corners = torch.tensor([[-1.0, -1], [1, -1], [1, 1], [-1, 1]], dtype=torch.float64)
    corners += rng.uniform(-0.3, 0.3, (4, 2), dtype=torch.float64)
    others = rng.uniform(-1, 1, (max(0, count - 4), 2), dtype=torch.float64)
    return torch.cat([corners, others])[:count]


def view(rng: Rng) -> torch.Tensor:
    """Return a homography that is far from singular on the square."""
    turn = rng.number(-3.1, 3.1)
    rotation = torch.tensor(
        [[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]], dtype=torch.float64
    )
    matrix = torch.eye(3, dtype=torch.float64)
    matrix[:2, :2] = rotation @ torch.diag(rng.uniform(0.6, 1.6, (2,), dtype=torch.float64))
    matrix[:2, 2] = rng.uniform(-1, 1, (2,), dtype=torch.float64)
    matrix[2, :2] = rng.uniform(-0.3, 0.3, (2,), dtype=torch.float64)
    return matrix


def pairs(rng: Rng, count: int, noise: float = 0.0):
    source = square(rng, count)
    target = apply(view(rng), source)
    return source, target + noise * rng.randn(count, 2, dtype=torch.float64)


@suite.visible("four pairs")
def four(rng: Rng):
    return pairs(rng, 4)


@suite.visible("six pairs with noise")
def six(rng: Rng):
    return pairs(rng, 6, 0.03)


@suite.visible("three pairs", raises=ValueError)
def three_shown(rng: Rng):
    source, target = pairs(rng, 4)
    return source[:3], target[:3]


@suite.hidden(
    "four pairs of pixels",
    edge="four pairs",
    concept="null space",
    note="A has 8 rows then. Its ninth right singular vector is the one that A takes to 0.",
)
def four_pixels(rng: Rng):
    source, target = pairs(rng, 4)
    return source * 400 + 500, target * 300 + 600


@suite.hidden("many exact pairs", note="Without noise every pair is met exactly.")
def many(rng: Rng):
    return pairs(rng, 50)


@suite.hidden(
    "noise in pixels far from the origin",
    concept="normalisation",
    note="With noise the answer depends on the normalisation. Normalise both sets, each by itself.",
)
def noisy_pixels(rng: Rng):
    source, target = pairs(rng, 20, 0.02)
    return source * 900 + 2000, target * 700 - 1500


@suite.hidden(
    "noise and very different scales",
    concept="normalisation",
    note="The mean distance from the mean becomes the root of 2, by one scale for both directions.",
)
def stretched(rng: Rng):
    source, target = pairs(rng, 12, 0.02)
    return source * torch.tensor([5.0, 1.0]).double(), target * 1e3


@suite.hidden(
    "points a long way off",
    concept="normalisation",
    note="Without normalisation numbers of 1 and of 1e12 meet in one matrix.",
)
def far(rng: Rng):
    source, target = pairs(rng, 10, 0.01)
    return source * 50 + 9e5, target * 70 - 8e5


@suite.hidden(
    "the origin goes to infinity",
    concept="fixing the scale",
    note="The last entry may be 0. Do not divide by it.",
)
def infinity(rng: Rng):
    # (x, y) goes to (y / x, 1 / x): the last row is (1, 0, 0).
    source = square(rng, 8) + torch.tensor([3.0, 0.0]).double()
    return source, torch.stack([source[:, 1], torch.ones(8).double()], 1) / source[:, :1]


@suite.hidden(
    "a mirror image",
    concept="fixing the scale",
    note="The determinant is positive, also where the map turns left into right.",
)
def mirrored(rng: Rng):
    source, target = pairs(rng, 7)
    return source, target * torch.tensor([-1.0, 1.0]).double()


@suite.hidden(
    "the identity", note="Points that stay where they are give a multiple of the identity."
)
def identity(rng: Rng):
    source = square(rng, 9)
    return source, source.clone()


@suite.hidden("a shift", note="A shift is a homography with a last row of 0, 0 and something.")
def shift(rng: Rng):
    source = square(rng, 5)
    return source, source + rng.uniform(-3, 3, (2,), dtype=torch.float64)


@suite.hidden(
    "three of four points on a line",
    edge="points that determine nothing",
    raises=ValueError,
    concept="degenerate points",
    note="Such a set fits more than one map. Look at the eighth singular value.",
)
def three_in_line(rng: Rng):
    source = square(rng, 4)
    source[2] = (source[0] + source[1]) / 2
    return source, apply(view(rng), source)


@suite.hidden(
    "three of four targets on a line",
    edge="points that determine nothing",
    raises=ValueError,
    concept="degenerate points",
    note="A map may fit and squash the plane all the same. Look at its determinant.",
)
def squashed(rng: Rng):
    source, target = pairs(rng, 4)
    target[3] = 0.3 * target[0] + 0.7 * target[1]
    return (source, target) if rng.integer(0, 2) else (target, source)


@suite.hidden(
    "all points on a line",
    edge="points that determine nothing",
    raises=ValueError,
    concept="degenerate points",
    note="Points on a line say nothing about what lies beside it.",
)
def line(rng: Rng):
    along = rng.uniform(-5, 5, (12, 1), dtype=torch.float64)
    source = along * torch.tensor([1.0, 2.0]).double() + 0.5
    return source, apply(view(rng), source / 12)


@suite.hidden(
    "one pair many times",
    edge="points that determine nothing",
    raises=ValueError,
    concept="degenerate points",
    note="Equal points have a mean distance of 0. Do not divide by it.",
)
def equal(rng: Rng):
    source, target = pairs(rng, 6)
    return (
        (source[:1].repeat(6, 1), target)
        if rng.integer(0, 2)
        else (source, target[:1].repeat(6, 1))
    )


@suite.hidden(
    "four pairs of which two are the same",
    edge="points that determine nothing",
    raises=ValueError,
    concept="degenerate points",
    note="Three different pairs are not enough, however often they are given.",
)
def repeated(rng: Rng):
    source, target = pairs(rng, 4)
    return source[[0, 1, 2, 1]], target[[0, 1, 2, 1]]


@suite.hidden("no points", raises=ValueError, note="Four pairs are needed.")
def none(rng: Rng):
    return torch.empty(0, 2, dtype=torch.float64), torch.empty(0, 2, dtype=torch.float64)


@suite.hidden("unequal numbers of points", raises=ValueError, note="Each point needs its partner.")
def unequal(rng: Rng):
    source, target = pairs(rng, 7)
    return source, target[:6]


@suite.hidden(
    "float32 and whole numbers",
    concept="dtypes",
    note="Compute in float64, whatever comes in.",
)
def mixed(rng: Rng):
    source, target = pairs(rng, 9)
    return (source * 1000).round().long(), (target * 1000).float()


@suite.hidden("transposed views", concept="memory layout")
def transposed(rng: Rng):
    source, target = pairs(rng, 6, 0.01)
    return source.T.contiguous().T, target.T.contiguous().T


@suite.generated("any points", times=3)
def any_points(rng: Rng):
    source, target = pairs(rng, rng.integer(4, 40), 0.01)
    scale = rng.number(0.5, 300)
    return source * scale + rng.number(-100, 100), target * scale
