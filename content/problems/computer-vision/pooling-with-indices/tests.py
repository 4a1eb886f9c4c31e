"""Tests of Max pooling that knows where."""

import math

import torch

from etude.practice.compare import Tolerance
from etude.practice.suite import Rng, Suite

# What is picked is not computed: it must be exact.
suite = Suite(tolerance=Tolerance(rtol=0.0, atol=0.0))


@suite.visible("two by two windows side by side")
def quarters(rng: Rng):
    return rng.randn(1, 1, 4, 6), (2, 2), (2, 2), (0, 0)


@suite.visible("negative numbers with padding")
def padded_shown(rng: Rng):
    return -rng.randn(1, 2, 3, 4).abs(), (3, 3), (2, 2), (1, 1)


@suite.visible("more padding than half of the kernel", raises=ValueError)
def padding_shown(rng: Rng):
    return rng.randn(1, 1, 5, 5), (3, 2), (1, 1), (2, 1)


@suite.hidden("no images", edge="N = 0", note="A batch of 0 images gives empty results.")
def none(rng: Rng):
    return rng.randn(0, 3, 6, 5), (2, 3), (2, 1), (1, 0)


@suite.hidden(
    "windows of one pixel",
    edge="a kernel of 1 × 1",
    note="A window of one pixel wins by itself. With a stride only some pixels are kept.",
)
def pixels(rng: Rng):
    return rng.randn(2, 3, 5, 6), (1, 1), (2, 3), (0, 0)


@suite.hidden(
    "one window as large as the image",
    edge="one output",
    note="Pooling over the whole image leaves one value a channel.",
)
def whole(rng: Rng):
    return rng.randn(2, 3, 4, 5), (4, 5), (1, 1), (0, 0)


@suite.hidden(
    "one pixel and padding",
    edge="one output",
    concept="padding",
    note="Padded places never win, even if only one pixel is left in the window.",
)
def lonely(rng: Rng):
    return rng.randn(2, 2, 1, 1) - 5, (2, 3), (3, 2), (1, 1)


@suite.hidden(
    "overlapping windows",
    note="The index counts in the whole image, not in the window.",
)
def overlapping(rng: Rng):
    return rng.randn(2, 2, 7, 6), (3, 3), (1, 2), (0, 0)


@suite.hidden(
    "wide images",
    note="An index is row times the image's width plus column; height and width differ.",
)
def wide(rng: Rng):
    return rng.randn(2, 2, 5, 13), (2, 3), (2, 3), (0, 0)


@suite.hidden(
    "negative numbers and much padding",
    concept="padding",
    note="A padding of zeros would win over negative numbers.",
)
def negative(rng: Rng):
    return -rng.uniform(1, 9, (2, 3, 6, 7)), (4, 5), (2, 3), (2, 2)


@suite.hidden(
    "another padding above than beside",
    concept="padding",
    note="Indices are those of the image without its padding.",
)
def uneven(rng: Rng):
    return rng.randn(2, 2, 6, 5), (4, 2), (2, 1), (2, 0)


@suite.hidden(
    "many equal values",
    concept="ties",
    note="Of equal values take the one with the smallest index.",
)
def ties(rng: Rng):
    return rng.integers(0, 3, (2, 3, 9, 8)).float(), (3, 3), (2, 2), (1, 1)


@suite.hidden(
    "all values equal",
    concept="ties",
    note="If everything is equal, the first place of the window inside the image wins.",
)
def equal(rng: Rng):
    return torch.full((1, 2, 5, 6), rng.number(-2, 2)), (3, 2), (1, 2), (1, 1)


@suite.hidden(
    "windows full of minus infinity",
    concept="padding",
    note="Minus infinity in the image equals minus infinity in the padding. Only the image counts.",
)
def infinite(rng: Rng):
    images = rng.randn(2, 2, 6, 6)
    images[0], images[1, :, :4] = -math.inf, -math.inf
    return images, (3, 3), (2, 2), (1, 1)


@suite.hidden("both infinities", note="Infinity is larger than every number.")
def both(rng: Rng):
    images = rng.randn(2, 2, 7, 7)
    images[rng.bools((2, 2, 7, 7), 0.2)] = math.inf
    images[rng.bools((2, 2, 7, 7), 0.3)] = -math.inf
    return images, (2, 2), (1, 1), (1, 1)


@suite.hidden(
    "unsigned bytes",
    concept="dtypes",
    note="Unsigned bytes know no minus infinity, and 0 is one of their values.",
)
def unsigned(rng: Rng):
    return rng.integers(0, 3, (2, 3, 6, 8), dtype=torch.uint8), (3, 3), (3, 2), (1, 1)


@suite.hidden(
    "large whole numbers",
    concept="dtypes",
    note="float32 does not hold all whole numbers above 16 million. Keep the type.",
)
def whole_numbers(rng: Rng):
    images = rng.integers(-(2**31), -(2**31) + 6, (2, 2, 7, 5), dtype=torch.int32)
    images[1] += 2**31 - 1
    images[1] += 2**31 - 7
    return images, (2, 3), (1, 1), (1, 1)


@suite.hidden(
    "float64 with tiny differences",
    concept="dtypes",
    note="Keep the type: in float32 these values are all equal.",
)
def double(rng: Rng):
    return 1 + rng.randn(2, 2, 6, 6, dtype=torch.float64, scale=1e-12), (3, 2), (2, 2), (0, 1)


@suite.hidden(
    "a window larger than the padded image",
    raises=ValueError,
    note="Where no whole window fits there is nothing to return.",
)
def too_large(rng: Rng):
    return rng.randn(2, 1, 2, 9), (5, 3), (1, 1), (1, 1)


@suite.hidden("large images", note="About two thousand windows: too many for a loop over them.")
def large(rng: Rng):
    return rng.randn(1, 2, 48, 44), (3, 3), (1, 1), (1, 1)


@suite.hidden("images with channels last", concept="memory layout")
def channels_last(rng: Rng):
    return rng.randn(2, 6, 5, 3).permute(0, 3, 1, 2), (2, 2), (2, 1), (1, 0)


@suite.generated("any sizes", times=3)
def sizes(rng: Rng):
    kernel = (rng.integer(1, 6), rng.integer(1, 6))
    padding = (rng.integer(0, kernel[0] // 2 + 1), rng.integer(0, kernel[1] // 2 + 1))
    stride = (rng.integer(1, 5), rng.integer(1, 5))
    sides = [size + rng.integer(0, 12) for size in kernel]
    images = rng.integers(-6, 4, (rng.integer(1, 4), rng.integer(1, 4), *sides))
    return images.float(), kernel, stride, padding
