"""Tests of Average precision of a detector."""

import torch

from etude.practice.compare import Tolerance
from etude.practice.suite import Rng, Suite

suite = Suite(tolerance=Tolerance(rtol=1e-6, atol=1e-9))


def iou(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    a, b = a.double()[:, None], b.double()[None]
    sides = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
    shared = sides.clamp(min=0).prod(-1)
    areas = [(boxes[..., 2:] - boxes[..., :2]).prod(-1) for boxes in (a, b)]
    return shared / (areas[0] + areas[1] - shared)


def scenes(rng: Rng, pictures: int, objects: int, found: int, crowd: float, wobble: float):
    """Return detections that wobble around true boxes; a small `crowd` puts them close together."""
    corner = rng.uniform(0, 100 * crowd, (objects, 2))
    truth = torch.cat([corner, corner + rng.uniform(15, 30, (objects, 2))], 1)
    truth_images = rng.integers(0, pictures, (objects,))
    about = rng.integers(0, objects, (found,))
    boxes = truth[about] + rng.randn(found, 4, scale=wobble)
    boxes[:, 2:] = torch.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    images = truth_images[about].where(rng.bools((found,), 0.85), 0)
    return boxes, images, truth, truth_images


def case(rng: Rng, pictures=4, objects=12, found=30, threshold=0.5, crowd=1.0, wobble=3.0):
    while True:
        made = boxes, images, truth, _ = scenes(rng, pictures, objects, found, crowd, wobble)
        overlaps = iou(boxes, truth)
        near = overlaps.sort(1).values.diff(dim=1)
        apart = (near > 1e-5) | (overlaps.sort(1).values[:, 1:] < 1e-3)
        if (overlaps - threshold).abs().min() > 2e-4 and apart.all():
            break
    return boxes, distinct(rng, found), images, *made[2:], threshold


def distinct(rng: Rng, count: int) -> torch.Tensor:
    """Return scores that all differ."""
    return (rng.permutation(count) + 1).float() / (count + 1)


@suite.visible("three detections in one image")
def three(rng: Rng):
    return case(rng, pictures=1, objects=2, found=3)


@suite.visible("eight detections in two images")
def eight(rng: Rng):
    return case(rng, pictures=2, objects=4, found=8)


@suite.hidden(
    "no detections",
    edge="no detections",
    note="If nothing is found, nothing is right: 0.0.",
)
def nothing_found(rng: Rng):
    boxes, scores, images, *rest = case(rng)
    return boxes[:0], scores[:0], images[:0], *rest


@suite.hidden("no true boxes", edge="no truth", note="Without true boxes there is no recall: nan.")
def no_truth(rng: Rng):
    boxes, scores, images, truth, truth_images, threshold = case(rng)
    return boxes, scores, images, truth[:0], truth_images[:0], threshold


@suite.hidden("nothing at all", edge="neither", note="Without true boxes the answer is nan.")
def neither(rng: Rng):
    none = torch.empty(0, dtype=torch.int64)
    return torch.empty(0, 4), torch.empty(0), none, torch.empty(0, 4), none, 0.5


@suite.hidden("everything is found", note="A perfect detector has 1.0.")
def perfect(rng: Rng):
    *_, truth, truth_images, threshold = case(rng)
    order = rng.permutation(len(truth))
    return (
        truth[order],
        distinct(rng, len(truth)),
        truth_images[order],
        truth,
        truth_images,
        threshold,
    )


@suite.hidden(
    "half of the boxes are found",
    concept="recall",
    note="The recall counts all true boxes, also those that nobody finds.",
)
def half(rng: Rng):
    *_, truth, truth_images, threshold = case(rng)
    order = rng.permutation(len(truth))[:6]
    return truth[order], distinct(rng, 6), truth_images[order], truth, truth_images, threshold


@suite.hidden(
    "boxes that are found several times",
    concept="matching",
    note="A true box can be matched once. Further detections of it are false alarms.",
)
def again(rng: Rng):
    return case(rng, pictures=3, objects=5, found=40, wobble=1.5)


@suite.hidden(
    "the right place in another image",
    concept="matching",
    note="Only boxes of the same image can be matched.",
)
def other_image(rng: Rng):
    boxes, scores, images, *rest = case(rng, pictures=5, found=25, wobble=1.0)
    wrong = rng.bools((25,), 0.5)
    return boxes, scores, (images + 1).where(wrong, images), *rest


@suite.hidden(
    "true boxes close together",
    concept="matching",
    note="If the best true box is taken, the second best may still be free.",
)
def crowded(rng: Rng):
    return case(rng, pictures=2, objects=14, found=40, crowd=0.25, threshold=0.3)


@suite.hidden(
    "two detections between two boxes",
    concept="matching",
    note="The better detection takes the box it fits best, the other one what is left.",
)
def second_best(rng: Rng):
    truth = torch.tensor([[0.0, 0, 10, 10], [2, 0, 12, 10]])
    boxes = torch.tensor([[0.0, 0, 11, 10], [0, 0, 10, 9]])
    if rng.integer(0, 2):
        truth = truth.flip(0)
    here = torch.full((2,), rng.integer(-5, 5))
    return boxes, torch.tensor([0.9, 0.8]), here, truth, here, 0.5


@suite.hidden(
    "an IoU that equals the threshold",
    concept="matching",
    note="At least the threshold: exactly the threshold is a hit.",
)
def exact(rng: Rng):
    truth = torch.tensor([[0.0, 0, 8, 4], [20, 20, 28, 28]])
    boxes = torch.tensor([[0.0, 0, 4, 4], [20, 20, 28, 24], [40, 40, 44, 44]])
    scores = torch.tensor([0.5, 0.4, 0.9])[rng.permutation(3)]
    return boxes, scores, torch.tensor([1, 1, 1]), truth, torch.tensor([1, 1]), 0.5


@suite.hidden(
    "true boxes with equal IoUs",
    concept="ties",
    note="Of equal IoUs take the true box with the smaller index.",
)
def equal_overlaps(rng: Rng):
    # The first detection fits both true boxes equally well, the second only the one that is left.
    truth = torch.tensor([[0.0, 0, 10, 10], [4, 0, 14, 10]])
    boxes = torch.tensor([[2.0, 0, 12, 10], [5, 0, 15, 10], [50, 50, 60, 60]])
    scores = torch.tensor([0.9, 0.7, 0.8])
    here = torch.zeros(3, dtype=torch.int64)
    shift = rng.integer(-9, 10)
    return boxes + shift, scores, here, truth + shift, here[:2], 0.6


@suite.hidden(
    "a box that fits well enough and one that fits better",
    concept="matching",
    note="Take the true box with the largest IoU, not the first one above the threshold.",
)
def better(rng: Rng):
    # Whoever takes the first box leaves nothing for the second detection.
    truth = torch.tensor([[0.0, 0, 10, 10], [4, 0, 14, 10]])
    boxes = torch.tensor([[3.0, 0, 13, 10], [0, 0, 10, 9]])
    here, shift = torch.full((2,), rng.integer(-5, 5)), rng.integer(-9, 10)
    return boxes + shift, torch.tensor([0.9, 0.8]), here, truth + shift, here, 0.5


@suite.hidden(
    "equal scores",
    concept="ties",
    note="Of equal scores the smaller index comes first. Is your sort stable?",
)
def equal_scores(rng: Rng):
    boxes, _, *rest = case(rng, objects=30, found=120, pictures=8)
    return boxes, rng.integers(0, 3, (120,)).float(), *rest


@suite.hidden(
    "a precision that rises again",
    concept="monotone precision",
    note="Each precision is replaced by the largest one from there to the end.",
)
def rising(rng: Rng):
    *_, truth, truth_images, threshold = case(rng)
    wrong = truth[:5] + 5000
    boxes = torch.cat([wrong[:2], truth[:4], wrong[2:], truth[4:9]])
    images = torch.cat([truth_images[:2], truth_images[:4], truth_images[2:5], truth_images[4:9]])
    scores = torch.linspace(0.9, 0.1, len(boxes))
    order = rng.permutation(len(boxes))
    return boxes[order], scores[order], images[order], truth, truth_images, threshold


@suite.hidden(
    "false alarms only after all hits",
    concept="monotone precision",
    note="What comes after the last hit changes nothing.",
)
def late_alarms(rng: Rng):
    *_, truth, truth_images, threshold = case(rng)
    boxes = torch.cat([truth, truth + 4000])
    scores = torch.cat([distinct(rng, 12) + 1, distinct(rng, 12)])
    return boxes, scores, truth_images.repeat(2), truth, truth_images, threshold


@suite.hidden("nothing fits", note="With false alarms only the average precision is 0.0.")
def nothing_fits(rng: Rng):
    boxes, scores, images, *rest = case(rng)
    return boxes + 3000, scores, images, *rest


@suite.hidden("a low threshold", note="The threshold is an argument, not always a half.")
def low(rng: Rng):
    return case(rng, threshold=0.15, wobble=7.0)


@suite.hidden("a high threshold", note="With a high threshold few detections are hits.")
def high(rng: Rng):
    return case(rng, threshold=0.85, wobble=1.0)


@suite.hidden(
    "images with large and negative numbers",
    note="The number of an image is a name, not a place in a list.",
)
def names(rng: Rng):
    boxes, scores, images, truth, truth_images, threshold = case(rng)
    name = torch.tensor([-7, 10**12, 0, 10**12 + 1])
    return boxes, scores, name[images], truth, name[truth_images], threshold


@suite.hidden("float64 and views", concept="memory layout")
def views(rng: Rng):
    boxes, scores, images, truth, *rest = case(rng)
    boxes, truth = (found.double().T.contiguous().T for found in (boxes, truth))
    return boxes, scores.double().repeat(2, 1).T[:, 0], images, truth, *rest


@suite.generated("any scenes", times=4)
def any_scenes(rng: Rng):
    return case(
        rng,
        pictures=rng.integer(1, 9),
        objects=rng.integer(2, 25),
        found=rng.integer(2, 60),
        threshold=rng.number(0.3, 0.7),
        crowd=rng.number(0.3, 1.5),
    )
