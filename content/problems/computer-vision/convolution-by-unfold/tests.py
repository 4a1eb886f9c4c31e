"""Tests of Convolution as a matrix product."""

import torch

from etude.practice.compare import Tolerance
from etude.practice.suite import Rng, Suite

suite = Suite(tolerance=Tolerance(rtol=1e-4, atol=2e-5))


def case(
    rng: Rng,
    images: tuple[int, ...],
    kernels: tuple[int, ...],
    stride=(1, 1),
    padding=(0, 0),
    dilation=(1, 1),
    dtype=torch.float32,
):
    """Return images (N, C, H, W), kernels (D, K_h, K_w) and the rest of the arguments."""
    weight = rng.randn(kernels[0], images[1], *kernels[1:], dtype=dtype)
    bias = rng.randn(kernels[0], dtype=dtype)
    return rng.randn(*images, dtype=dtype), weight, bias, stride, padding, dilation


@suite.visible("two by two windows")
def small(rng: Rng):
    return case(rng, (1, 1, 3, 4), (1, 2, 2))


@suite.visible("zeros around, every second place")
def strided(rng: Rng):
    return case(rng, (1, 2, 4, 4), (2, 3, 3), stride=(2, 2), padding=(1, 1))


@suite.visible("a window larger than the image", raises=ValueError)
def too_large_shown(rng: Rng):
    return case(rng, (1, 1, 2, 5), (1, 3, 3))


@suite.hidden(
    "no images", edge="N = 0", note="A batch of 0 images gives results with a first size of 0."
)
def none(rng: Rng):
    return case(rng, (0, 3, 6, 5), (4, 3, 2), padding=(1, 0))


@suite.hidden(
    "a kernel of one weight",
    edge="a kernel of 1 × 1",
    note="A kernel of 1 × 1 mixes the channels of each pixel, and nothing else.",
)
def pointwise(rng: Rng):
    return case(rng, (2, 5, 4, 6), (3, 1, 1))


@suite.hidden(
    "a window as large as the image",
    edge="one output",
    note="If the window has one place only, the output has one row and one column.",
)
def single(rng: Rng):
    return case(rng, (2, 3, 4, 5), (2, 4, 5))


@suite.hidden(
    "a stride that leaves something over",
    concept="strides",
    note="The last rows and columns are left out where no whole window fits.",
)
def left_over(rng: Rng):
    return case(rng, (2, 2, 8, 11), (3, 3, 3), stride=(3, 4))


@suite.hidden(
    "a kernel that is higher than wide",
    note="The row inside a column counts channels first, then kernel rows, then kernel columns.",
)
def tall(rng: Rng):
    return case(rng, (2, 3, 9, 7), (4, 5, 2))


@suite.hidden(
    "another padding above than beside",
    concept="padding",
    note="The first number of a pair is the vertical one. Which one does F.pad take first?",
)
def uneven_padding(rng: Rng):
    return case(rng, (2, 2, 5, 6), (3, 3, 2), padding=(2, 0))


@suite.hidden(
    "dilation",
    concept="dilation",
    note="With dilation d the window spans d (K - 1) + 1 pixels, of which it reads K.",
)
def dilated(rng: Rng):
    return case(rng, (2, 2, 9, 10), (3, 3, 3), dilation=(2, 3))


@suite.hidden("stride, padding and dilation, all different", note="Check which pair is which.")
def everything(rng: Rng):
    return case(rng, (2, 3, 12, 17), (4, 3, 2), stride=(2, 3), padding=(1, 2), dilation=(3, 2))


@suite.hidden("no bias", note="bias may be None.")
def unbiased(rng: Rng):
    images, weight, _, *rest = case(rng, (2, 3, 5, 5), (4, 3, 3), padding=(1, 1))
    return images, weight, None, *rest


@suite.hidden(
    "a dilated window larger than the padded image",
    raises=ValueError,
    concept="dilation",
    note="Dilation makes the window larger. Compare its span with the padded image.",
)
def too_large(rng: Rng):
    return case(rng, (2, 1, 6, 9), (1, 3, 3), padding=(0, 1), dilation=(3, 1))


@suite.hidden(
    "a dilated window that just fits",
    edge="one output",
    concept="dilation",
    note="The padding counts: compare the window with the padded image.",
)
def just_fits(rng: Rng):
    return case(rng, (1, 2, 6, 7), (2, 3, 4), stride=(4, 1), padding=(1, 0), dilation=(3, 2))


@suite.hidden(
    "large images",
    note="About two thousand places: too many for a loop over them.",
)
def large(rng: Rng):
    return case(rng, (1, 3, 48, 44), (4, 3, 3), padding=(1, 1))


@suite.hidden(
    "float64",
    concept="dtypes",
    note="Zeros of the padding have the type of the images.",
    tolerance=Tolerance(rtol=1e-11, atol=1e-12),
)
def double(rng: Rng):
    return case(rng, (2, 2, 6, 6), (3, 3, 3), padding=(1, 1), dtype=torch.float64)


@suite.hidden("images with channels last", concept="memory layout")
def channels_last(rng: Rng):
    _, weight, *rest = case(rng, (2, 3, 6, 5), (4, 2, 3), padding=(0, 1))
    return rng.randn(2, 6, 5, 3).permute(0, 3, 1, 2), weight.transpose(2, 3), *rest


@suite.generated("any sizes", times=4)
def sizes(rng: Rng):
    padding, dilation = ((rng.integer(0, 3), rng.integer(0, 3)) for _ in range(2))
    dilation = (dilation[0] + 1, dilation[1] + 1)
    kernels = (rng.integer(1, 6), rng.integer(1, 5), rng.integer(1, 6))
    spans = [step * (size - 1) + 1 for step, size in zip(dilation, kernels[1:], strict=True)]
    sides = [
        max(1, span - 2 * pad) + rng.integer(0, 8) for span, pad in zip(spans, padding, strict=True)
    ]
    stride = (rng.integer(1, 4), rng.integer(1, 4))
    shape = (rng.integer(1, 4), rng.integer(1, 5), *sides)
    return case(rng, shape, kernels, stride, padding, dilation)
