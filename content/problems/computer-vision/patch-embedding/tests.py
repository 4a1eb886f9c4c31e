"""Tests of Patch embedding."""

import torch

from etude.practice.compare import Tolerance
from etude.practice.suite import Rng, Suite

suite = Suite(tolerance=Tolerance(rtol=1e-4, atol=5e-5))


def case(rng: Rng, images: tuple[int, ...], side: int, width: int, dtype=torch.float32):
    """Return images (N, C, H, W) and the weights of patches of `side` and vectors of `width`."""
    weight = rng.randn(width, images[1], side, side, dtype=dtype)
    return rng.randn(*images, dtype=dtype), weight, rng.randn(width, dtype=dtype)


@suite.visible("two patches side by side")
def two(rng: Rng):
    return case(rng, (1, 1, 2, 4), 2, 3)


@suite.visible("two by three patches of two channels")
def six(rng: Rng):
    return case(rng, (1, 2, 4, 6), 2, 3)


@suite.visible("a height that does not divide", raises=ValueError)
def odd_shown(rng: Rng):
    return case(rng, (1, 1, 5, 4), 2, 2)


@suite.hidden("no images", edge="N = 0", note="Without images the result has the shape (0, L, D).")
def none(rng: Rng):
    return case(rng, (0, 3, 8, 4), 4, 5)


@suite.hidden(
    "one patch", edge="one patch", note="An image as large as a patch still has a row of tokens."
)
def one(rng: Rng):
    return case(rng, (3, 2, 4, 4), 4, 6)


@suite.hidden(
    "patches of one pixel",
    edge="patches of one pixel",
    note="Each pixel is a patch then, and its channels are mixed.",
)
def pixels(rng: Rng):
    return case(rng, (2, 3, 4, 5), 1, 4)


@suite.hidden(
    "a wide image",
    note="Tokens go from left to right first. Rows and columns of patches differ in number.",
)
def wide(rng: Rng):
    return case(rng, (2, 1, 4, 20), 4, 3)


@suite.hidden("a high image", note="The number of patches in a row is W / P, not H / P.")
def high(rng: Rng):
    return case(rng, (2, 1, 18, 6), 3, 4)


@suite.hidden(
    "three channels",
    note="The weight counts channels first, then rows, then columns of a patch.",
)
def color(rng: Rng):
    return case(rng, (2, 3, 8, 8), 4, 5)


@suite.hidden(
    "equal sizes everywhere", note="Equal sizes hide a wrong order. Use ones that differ."
)
def equal(rng: Rng):
    return case(rng, (4, 4, 16, 16), 4, 4)


@suite.hidden(
    "patches of sixteen pixels", note="This is the size of the first vision transformers."
)
def sixteen(rng: Rng):
    return case(rng, (2, 3, 64, 48), 16, 32)


@suite.hidden("one number a patch", note="The vectors may have a single number.")
def narrow(rng: Rng):
    return case(rng, (2, 2, 6, 9), 3, 1)


@suite.hidden(
    "a width that does not divide",
    raises=ValueError,
    note="Check both sides. Pixels that are left over must not vanish silently.",
)
def odd(rng: Rng):
    return case(rng, (2, 2, 8, 10), 4, 3)


@suite.hidden(
    "an image whose pixels would do for whole patches",
    raises=ValueError,
    note="The number of pixels may divide though the sides do not.",
)
def divides_together(rng: Rng):
    return case(rng, (1, 1, rng.choice([6, 10]), 8), 4, 2)


@suite.hidden(
    "float64",
    concept="dtypes",
    note="Keep the type.",
    tolerance=Tolerance(rtol=1e-10, atol=1e-11),
)
def double(rng: Rng):
    return case(rng, (2, 3, 8, 12), 4, 6, dtype=torch.float64)


@suite.hidden(
    "images with channels last",
    concept="memory layout",
    note="view needs contiguous memory; reshape copies where it must.",
)
def channels_last(rng: Rng):
    _, weight, bias = case(rng, (2, 3, 8, 4), 2, 5)
    return rng.randn(2, 8, 4, 3).permute(0, 3, 1, 2), weight.transpose(2, 3), bias


@suite.hidden("many patches", note="A loop over 1024 patches takes too many steps.")
def many(rng: Rng):
    return case(rng, (1, 1, 64, 64), 2, 3)


@suite.generated("any sizes", times=3)
def sizes(rng: Rng):
    side = rng.integer(1, 6)
    shape = (rng.integer(1, 5), rng.integer(1, 5))
    return case(
        rng, (*shape, side * rng.integer(1, 7), side * rng.integer(1, 7)), side, rng.integer(1, 9)
    )
