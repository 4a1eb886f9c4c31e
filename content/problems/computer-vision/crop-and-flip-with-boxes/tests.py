"""Tests of Crop and flip, boxes and all."""

import math

import torch

from etude.practice.compare import Tolerance
from etude.practice.suite import Rng, Suite

suite = Suite(tolerance=Tolerance(rtol=1e-5, atol=1e-4))
# Height and width of the image, where a test does not say otherwise.
SIZE = (12, 16)


def boxes(rng: Rng, count: int, size=SIZE, dtype=torch.float32) -> torch.Tensor:
    """Return boxes of which most lie inside of the image."""
    height, width = size
    low = rng.uniform(-2, 1, (count, 2)) + rng.uniform(0, 1, (count, 2)) * torch.tensor(
        [width - 2.0, height - 2.0]
    )
    side = rng.uniform(1, 8, (count, 2))
    return torch.cat([low, low + side], 1).to(dtype)


def clear(rng: Rng, make, place: tuple[int, int, int, int], share: float) -> torch.Tensor:
    """Return boxes whose seen shares all keep away from `share`."""
    top, left, height, width = place
    while True:
        box = make().double()
        x = box[:, 0::2].clamp(left, left + width)
        y = box[:, 1::2].clamp(top, top + height)
        seen = (x[:, 1] - x[:, 0]) * (y[:, 1] - y[:, 0])
        whole = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
        if ((seen / whole - share).abs() > 2e-4).all():
            return box


def case(rng: Rng, place, flip: bool, share: float = 0.3, count: int = 8, size=SIZE):
    found = clear(rng, lambda: boxes(rng, count, size), place, share).float()
    return rng.randn(3, *size), found, *place, flip, share


@suite.visible("a crop inside of the image")
def inside(rng: Rng):
    image, found, *rest = case(rng, (1, 1, 2, 3), False, count=2, size=(4, 5))
    return image[:1], found, *rest


@suite.visible("a crop that is flipped")
def flipped_shown(rng: Rng):
    image, found, *rest = case(rng, (0, 1, 3, 3), True, count=3, size=(3, 4))
    return image[:1], found, *rest


@suite.visible("a crop beyond the left border")
def beyond_shown(rng: Rng):
    image = rng.integers(1, 100, (1, 2, 3), dtype=torch.uint8)
    return image, torch.tensor([[0.0, 0.0, 2.0, 2.0]]), 0, -1, 2, 3, False, 0.5


@suite.hidden(
    "no boxes", edge="no boxes", note="Without boxes the result has the shapes (0, 4) and (0,)."
)
def none(rng: Rng):
    return rng.randn(3, *SIZE), torch.empty(0, 4), 2, 3, 5, 6, True, 0.5


@suite.hidden(
    "no box is left",
    edge="no boxes",
    note="If every box is dropped, the shapes are (0, 4) and (0,).",
)
def all_dropped(rng: Rng):
    found = torch.tensor([[0.0, 0, 2, 2], [10, 8, 14, 11], [3, 0, 6, 2]])
    return rng.randn(1, *SIZE), found, 4, 4, 3, 4, bool(rng.integer(0, 2)), 0.0


@suite.hidden(
    "the whole image, flipped",
    concept="flipping",
    note="x becomes width - x. Pixels are squares here, so there is no - 1.",
)
def whole_flipped(rng: Rng):
    return case(rng, (0, 0, *SIZE), True)


@suite.hidden(
    "a crop inside, flipped",
    concept="flipping",
    note="Mirror in the crop's own width. And left and right sides change roles.",
)
def inside_flipped(rng: Rng):
    return case(rng, (3, 2, 7, 9), True)


@suite.hidden(
    "a crop beyond all four borders",
    note="Outside of the image the crop is 0. Boxes are cut by the crop only.",
)
def around(rng: Rng):
    return case(rng, (-3, -5, 20, 23), False)


@suite.hidden(
    "a crop beyond the lower right corner, flipped",
    note="The zeros are flipped together with the rest.",
)
def lower_right(rng: Rng):
    return case(rng, (7, 9, 10, 11), True)


@suite.hidden(
    "a crop beyond the upper left corner",
    note="A slice that begins at a negative number counts from the end.",
)
def upper_left(rng: Rng):
    return case(rng, (-4, -3, 9, 8), False)


@suite.hidden(
    "crops that miss the image",
    edge="a crop outside of the image",
    note="If crop and image have nothing in common, the crop is all zeros.",
)
def outside(rng: Rng):
    image, found, *_ = case(rng, (0, 0, 4, 4), False)
    place = rng.choice([(-20, 3), (3, -20), (30, 3), (3, 30), (-50, -50), (12, 0), (0, 16)])
    return image, found, *place, 5, 6, True, 0.5


@suite.hidden(
    "boxes outside of the image",
    edge="a crop outside of the image",
    note="A crop may show a box where the image has no pixels. It counts all the same.",
)
def boxes_outside(rng: Rng):
    found = torch.tensor([[-8.0, -6, -2, -1], [-3, -3, 2, 3], [15, 11, 20, 14], [30, 30, 31, 31]])
    return rng.randn(2, *SIZE), found, -10, -9, 30, 40, False, 0.25


@suite.hidden("a crop of one pixel", edge="one pixel", note="A crop may be as small as a pixel.")
def one_pixel(rng: Rng):
    return case(rng, (4, 6, 1, 1), True, share=0.02)


@suite.hidden(
    "an image of one pixel", edge="one pixel", note="Of most of this crop there is no image."
)
def tiny_image(rng: Rng):
    return rng.randn(2, 1, 1), torch.tensor([[0.0, 0, 1, 1]]), -2, -3, 5, 4, True, 1.0


@suite.hidden(
    "boxes of which exactly the share is left",
    concept="shares",
    note="At least the share: exactly the share is enough.",
)
def exact(rng: Rng):
    found = torch.tensor(
        [[0.0, 0, 8, 4], [2, 0, 6, 4], [0, 0, 16, 4], [4, 2, 12, 10], [4, -4, 8, 4]]
    )
    return rng.randn(1, *SIZE), found, 0, 4, 12, 10, False, rng.choice([0.25, 0.5, 0.75, 1.0])


@suite.hidden(
    "every box that can be seen",
    concept="shares",
    note="Even with a share of 0 a box that only touches the crop is dropped.",
)
def touching(rng: Rng):
    found = torch.tensor([[0.0, 0, 4, 4], [4, 4, 8, 8], [8, 4, 9, 9], [4, 8, 6, 9], [7, 7, 9, 9]])
    return rng.randn(1, *SIZE), found, 4, 4, 4, 4, bool(rng.integer(0, 2)), 0.0


@suite.hidden(
    "whole boxes only",
    concept="shares",
    note="With a share of 1 only boxes that are wholly inside are kept.",
)
def whole_only(rng: Rng):
    found = torch.tensor([[4.0, 4, 6, 6], [3, 4, 6, 6], [4, 4, 9, 8], [5, 5, 8, 8], [0, 0, 16, 12]])
    return rng.randn(1, *SIZE), found, 4, 4, 4, 5, bool(rng.integer(0, 2)), 1.0


@suite.hidden(
    "boxes without area",
    concept="shares",
    note="A box without area has none inside the crop, and is dropped. No NaN may come of it.",
)
def flat(rng: Rng):
    found = torch.tensor([[5.0, 5, 5, 8], [5, 5, 7, 5], [5, 5, 5, 5], [4, 4, 6, 7]])
    return rng.randn(1, *SIZE), found, 3, 3, 7, 8, bool(rng.integer(0, 2)), 0.0


@suite.hidden(
    "bytes", concept="dtypes", note="The crop keeps the image's type, the boxes keep theirs."
)
def unsigned(rng: Rng):
    _, found, *rest = case(rng, (-2, 5, 9, 14), True)
    return rng.integers(1, 256, (3, *SIZE), dtype=torch.uint8), found, *rest


@suite.hidden(
    "NaN in the image",
    concept="dtypes",
    note="Copy pixels; 0 times NaN is not 0. What lies outside of the crop does not matter.",
)
def not_numbers(rng: Rng):
    image, found, *rest = case(rng, (2, -2, 6, 9), True)
    image[rng.bools((3, *SIZE), 0.3)] = math.nan
    return image, found, *rest


@suite.hidden("float64", concept="dtypes", tolerance=Tolerance(rtol=1e-12, atol=1e-12))
def double(rng: Rng):
    place = (2, 3, 6, 8)
    found = clear(rng, lambda: boxes(rng, 10, dtype=torch.float64), place, 0.4)
    return rng.randn(2, *SIZE, dtype=torch.float64), found, *place, True, 0.4


@suite.hidden("views", concept="memory layout")
def views(rng: Rng):
    _, found, *rest = case(rng, (0, 0, *SIZE), False)
    return rng.randn(*SIZE, 3).permute(2, 0, 1), found.T.contiguous().T, *rest


@suite.generated("any crop", times=4)
def any_crop(rng: Rng):
    size = (rng.integer(1, 30), rng.integer(1, 30))
    place = (rng.integer(-8, 20), rng.integer(-8, 20), rng.integer(1, 30), rng.integer(1, 30))
    return case(rng, place, bool(rng.integer(0, 2)), rng.number(0.05, 0.9), 12, size)
