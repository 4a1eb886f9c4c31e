"""Tests of Bilinear resize."""

import torch

from etude.practice.compare import Tolerance
from etude.practice.suite import Rng, Suite

# Arguments: images, the new size, and the weights of the result for the gradient.
# In float32 a place near 100 may be off by 1e-5, and so may PyTorch's own.
suite = Suite(tolerance=Tolerance(rtol=1e-4, atol=2e-4))
FINE = Tolerance(rtol=1e-10, atol=1e-11)


def case(rng: Rng, shape: tuple[int, ...], height: int, width: int, dtype=torch.float32):
    weights = rng.randn(*shape[:2], max(0, height), max(0, width), dtype=dtype)
    return rng.randn(*shape, dtype=dtype), height, width, weights


@suite.visible("twice as wide")
def wider(rng: Rng):
    return case(rng, (1, 1, 1, 3), 1, 6)


@suite.visible("larger in both directions")
def larger_shown(rng: Rng):
    return case(rng, (1, 1, 2, 2), 3, 4)


@suite.visible("no rows are asked for", raises=ValueError)
def nothing_shown(rng: Rng):
    return case(rng, (1, 1, 3, 3), 0, 3)


@suite.hidden(
    "one pixel",
    edge="one pixel in",
    note="A single pixel is its own neighbour on every side.",
)
def pixel(rng: Rng):
    return case(rng, (2, 3, 1, 1), 5, 4)


@suite.hidden(
    "one row",
    edge="one pixel in",
    note="The second neighbour may not lie beyond the last row.",
)
def row(rng: Rng):
    return case(rng, (1, 2, 1, 6), 4, 9)


@suite.hidden(
    "down to one pixel",
    edge="one pixel out",
    note="The only pixel lies in the middle of the image, not in its corner.",
)
def to_pixel(rng: Rng):
    return case(rng, (2, 2, 4, 7), 1, 1)


@suite.hidden("no images", edge="N = 0", note="A batch of 0 images gives one of the new size.")
def none(rng: Rng):
    return case(rng, (0, 3, 4, 4), 7, 2)


@suite.hidden("the same size", note="Each pixel lies exactly on its own place.")
def same(rng: Rng):
    return case(rng, (2, 3, 5, 7), 5, 7)


@suite.hidden(
    "half the size",
    concept="pixel centres",
    note="At half the size each pixel lies in the middle of four.",
)
def half(rng: Rng):
    return case(rng, (2, 2, 8, 6), 4, 3)


@suite.hidden(
    "a third of the size",
    concept="pixel centres",
    note="At a third of the size each pixel lies exactly on the middle one of three.",
)
def third(rng: Rng):
    return case(rng, (1, 2, 9, 12), 3, 4)


@suite.hidden(
    "much smaller",
    concept="aliasing",
    note="There are two neighbours in each direction, however small the image becomes.",
)
def much_smaller(rng: Rng):
    return case(rng, (1, 2, 50, 37), 4, 3)


@suite.hidden(
    "three times as large",
    concept="pixel centres",
    note="Places before the first centre are taken as 0; behind the last one nothing new comes.",
)
def three_times(rng: Rng):
    return case(rng, (2, 2, 4, 3), 12, 9)


@suite.hidden("sizes with odd ratios", note="Height and width have a ratio of their own.")
def odd(rng: Rng):
    return case(rng, (2, 3, 7, 11), 10, 4)


@suite.hidden("higher and narrower", note="Check which size belongs to which dimension.")
def turned(rng: Rng):
    return case(rng, (1, 2, 4, 9), 9, 4)


@suite.hidden(
    "large values",
    concept="numerical accuracy",
    note="Two weights that add up to 1 keep a constant image as it is.",
    tolerance=Tolerance(rtol=1e-6, atol=2e-4),
)
def large(rng: Rng):
    images, *rest = case(rng, (1, 2, 6, 5), 9, 11)
    return images + 1e6, *rest


@suite.hidden(
    "a steep ramp over 100 pixels",
    concept="numerical accuracy",
    note="The places must be right to their last digits, also at the far end.",
    tolerance=FINE,
)
def ramp(rng: Rng):
    _, *rest = case(rng, (1, 1, 100, 3), 67, 3, dtype=torch.float64)
    rows = torch.arange(100, dtype=torch.float64)[:, None] ** 3
    return (rows + rng.uniform(0, 5, (3,), dtype=torch.float64))[None, None], *rest


@suite.hidden(
    "float64",
    concept="dtypes",
    note="Weights in float32 spoil a result in float64.",
    tolerance=FINE,
)
def double(rng: Rng):
    return case(rng, (2, 2, 7, 6), 13, 10, dtype=torch.float64)


@suite.hidden(
    "float64 and smaller",
    concept="dtypes",
    note="PyTorch computes in float32 where you do not ask for more.",
    tolerance=FINE,
)
def double_smaller(rng: Rng):
    return case(rng, (1, 2, 64, 51), 11, 23, dtype=torch.float64)


@suite.hidden("a negative width", raises=ValueError, note="A width is at least 1.")
def negative(rng: Rng):
    return case(rng, (1, 1, 3, 3), 3, -2)


@suite.hidden("images with channels last", concept="memory layout")
def channels_last(rng: Rng):
    _, *rest = case(rng, (2, 3, 6, 5), 4, 8)
    return rng.randn(2, 6, 5, 3).permute(0, 3, 1, 2), *rest


@suite.hidden("large images", note="A loop over rows and columns takes too many steps.")
def many(rng: Rng):
    return case(rng, (1, 3, 60, 80), 100, 90)


@suite.generated("any sizes", times=3)
def sizes(rng: Rng):
    shape = (rng.integer(1, 4), rng.integer(1, 4), rng.integer(1, 20), rng.integer(1, 20))
    return case(rng, shape, rng.integer(1, 30), rng.integer(1, 30))
