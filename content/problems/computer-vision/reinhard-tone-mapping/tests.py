"""Tests of Reinhard tone mapping."""

import torch

from etude.practice.compare import Tolerance
from etude.practice.suite import Rng, Suite

suite = Suite(tolerance=Tolerance(rtol=1e-4, atol=1e-6))


def scene(rng: Rng, *shape: int, spread: float = 2.0, dtype=torch.float32) -> torch.Tensor:
    """Return images whose brightness spreads over several powers of ten."""
    count, height, width = shape
    light = rng.randn(count, 1, height, width, dtype=torch.float64, scale=spread).exp()
    tint = rng.uniform(0.2, 1.0, (count, 3, height, width), dtype=torch.float64)
    return (light * tint).to(dtype)


@suite.visible("two pixels")
def two(rng: Rng):
    return scene(rng, 1, 1, 2), 0.18, None


@suite.visible("with a white point")
def white_shown(rng: Rng):
    return scene(rng, 1, 1, 3), 0.5, 1.5


@suite.hidden("no images", edge="N = 0", note="Without images the result is empty.")
def none(rng: Rng):
    return torch.empty(0, 3, 4, 5), 0.18, 2.0


@suite.hidden(
    "one pixel",
    edge="one pixel",
    note="The log-average of one pixel is its own luminance (and delta).",
)
def pixel(rng: Rng):
    return scene(rng, 2, 1, 1), 0.3, 4.0


@suite.hidden(
    "a black image",
    edge="a black image",
    note="0 / 0 is NaN. A black image stays black.",
)
def black(rng: Rng):
    return torch.zeros(2, 3, 4, 4), 0.18, rng.choice([None, 2.0])


@suite.hidden(
    "a black image among others",
    edge="a black image",
    concept="batches",
    note="Each image has a log-average of its own.",
)
def one_black(rng: Rng):
    images = scene(rng, 3, 4, 5)
    images[1] = 0
    return images, 0.18, None


@suite.hidden(
    "black pixels among others",
    concept="log-average",
    note="The logarithm of 0 is minus infinity; delta prevents that. Black pixels count as well.",
)
def black_pixels(rng: Rng):
    images = scene(rng, 2, 6, 5)
    return images * rng.bools((2, 1, 6, 5), 0.6), 0.18, 3.0


@suite.hidden(
    "images of different brightness",
    concept="batches",
    note="Each image has a log-average of its own, over its pixels only.",
)
def brightness(rng: Rng):
    return scene(rng, 3, 5, 6) * torch.tensor([0.01, 1.0, 300.0]).reshape(3, 1, 1, 1), 0.18, None


@suite.hidden(
    "strong colours",
    concept="luminance",
    note="The luminance weighs green most and blue least. All colours get the same factor.",
)
def strong(rng: Rng):
    images = scene(rng, 2, 4, 4)
    return images * rng.bools((2, 3, 4, 4), 0.5), 0.3, None


@suite.hidden(
    "pure blue lights",
    concept="clipping",
    note="A luminance below 1 does not keep a colour below 1. Clip in the end.",
)
def blue(rng: Rng):
    images = scene(rng, 1, 5, 5)
    images[:, :2] = 0
    return images, 1.0, 2.0


@suite.hidden(
    "brighter than white",
    concept="clipping",
    note="Beyond the white point the curve passes 1. Clip in the end.",
)
def burnt(rng: Rng):
    return scene(rng, 2, 6, 6), 0.8, 0.5


@suite.hidden(
    "a white point that is far away", note="With a very large white point nothing is burnt out."
)
def far_white(rng: Rng):
    return scene(rng, 2, 5, 5, spread=3.0), 0.18, 1e6


@suite.hidden(
    "grey pixels without delta",
    note="Take the average of logarithms, not the logarithm of the average.",
)
def grey(rng: Rng):
    return scene(rng, 2, 8, 8).mean(1, keepdim=True).expand(2, 3, 8, 8), 0.18, None


@suite.hidden(
    "very dark images",
    concept="log-average",
    note="Here delta matters: it is added to each luminance before the logarithm.",
)
def dark(rng: Rng):
    return scene(rng, 2, 5, 5) * 1e-6, 0.18, 1.2


@suite.hidden(
    "very bright lights in the dark",
    concept="numerical stability",
    note="The square of a very large luminance is infinite, and infinity by infinity is NaN.",
)
def lights(rng: Rng):
    images = scene(rng, 2, 6, 6) * 1e-4
    images[:, :, 2, 3], images[:, :, 4, 1] = 1e20, 3e19
    return images, 0.18, 0.5


@suite.hidden(
    "bright everywhere",
    concept="numerical stability",
    note="The product of many large numbers is infinite. Add logarithms instead.",
)
def bright(rng: Rng):
    return scene(rng, 2, 16, 16) * 1e15, 0.18, 2.0


@suite.hidden(
    "half precision",
    concept="dtypes",
    note="float16 ends at 65504 and has 1e-6 with one digit only. Compute in float32.",
    tolerance=Tolerance(rtol=1e-3, atol=1e-6),
)
def half(rng: Rng):
    return (scene(rng, 2, 6, 6) * 300).clamp(max=65504).to(torch.float16), 0.18, 5.0


@suite.hidden(
    "half precision in the dark",
    concept="dtypes",
    note="The scale may be larger than float16 can hold. Compute in float32.",
    tolerance=Tolerance(rtol=1e-3, atol=1e-6),
)
def half_dark(rng: Rng):
    images = scene(rng, 2, 8, 8).clamp(max=60000)
    return (images * rng.bools((2, 1, 8, 8), 0.15)).to(torch.float16), 0.5, None


@suite.hidden(
    "float64",
    concept="dtypes",
    tolerance=Tolerance(rtol=1e-10, atol=1e-13),
    note="Keep the type, and its accuracy.",
)
def double(rng: Rng):
    return scene(rng, 2, 5, 7, dtype=torch.float64), 0.36, 3.0


@suite.hidden(
    "the image alone",
    note="Without further arguments the key is 0.18, and there is no white point.",
)
def defaults(rng: Rng):
    return (scene(rng, 2, 5, 4),)


@suite.hidden("images with channels last", concept="memory layout")
def channels_last(rng: Rng):
    return rng.uniform(0, 9, (2, 6, 5, 3)).permute(0, 3, 1, 2), 0.18, 2.0


@suite.generated("any scene", times=3)
def any_scene(rng: Rng):
    white = rng.choice([None, rng.number(0.3, 6.0)])
    shape = (rng.integer(1, 4), rng.integer(1, 20), rng.integer(1, 20))
    return scene(rng, *shape, spread=3.0), rng.number(0.02, 2.0), white
