"""Tests of Non-maximum suppression."""

import torch

from etude.practice.suite import Rng, Suite

suite = Suite()


def heaps(rng: Rng, count: int, objects: int, side: float = 20.0, dtype=torch.float32):
    """Return `count` boxes in heaps around a few objects."""
    corner = rng.uniform(-40, 40, (objects, 2))
    size = rng.uniform(side / 2, side, (objects, 2))
    which = rng.integers(0, objects, (count,))
    box = torch.cat([corner, corner + size], 1)[which] + rng.randn(count, 4, scale=side / 12)
    return torch.cat([box[:, :2], torch.maximum(box[:, 2:], box[:, :2] + 1)], 1).to(dtype)


def iou(boxes: torch.Tensor) -> torch.Tensor:
    boxes = boxes.double()
    low = torch.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    return shared / (area[:, None] + area[None] - shared).clamp(min=1e-300)


def clear(rng: Rng, count: int, objects: int, threshold: float, kinds: int = 1, **more):
    """Return arguments in which no IoU comes near to the threshold."""
    while True:
        boxes = heaps(rng, count, objects, **more)
        if (iou(boxes) - threshold).abs().min() > 2e-4:
            break
    return boxes, distinct(rng, count), rng.integers(0, kinds, (count,)), threshold


def distinct(rng: Rng, count: int) -> torch.Tensor:
    """Return scores that all differ."""
    return (rng.permutation(count) + 1).float() / (count + 1)


@suite.visible("four boxes of one object")
def four(rng: Rng):
    return clear(rng, 4, 1, 0.5)


@suite.visible("two classes")
def two_classes(rng: Rng):
    return clear(rng, 6, 1, 0.4, kinds=2)


@suite.hidden("no boxes", edge="N = 0", note="Without boxes nothing is kept; the type stays int64.")
def none(rng: Rng):
    return torch.empty(0, 4), torch.empty(0), torch.empty(0, dtype=torch.int64), 0.5


@suite.hidden("one box", edge="N = 1", note="A single box is kept, whatever its score.")
def one(rng: Rng):
    boxes, _, classes, _ = clear(rng, 1, 1, 0.5)
    return boxes, torch.tensor([-3.0]), classes, 0.5


@suite.hidden(
    "several heaps of one class", note="Boxes that do not overlap do not disturb each other."
)
def several(rng: Rng):
    return clear(rng, 25, 5, 0.45)


@suite.hidden(
    "a chain of boxes",
    note="A box that was dropped drops no others: only kept boxes count.",
)
def chain(rng: Rng):
    start = torch.arange(8.0)[:, None] * 3
    boxes = torch.cat([start, torch.zeros(8, 1), start + 10, torch.full((8, 1), 10.0)], 1)
    scores = torch.linspace(0.9, 0.2, 8)
    if rng.integer(0, 2):
        boxes = boxes.flip(0)
    return boxes + rng.integer(-5, 5), scores, torch.zeros(8, dtype=torch.int64), 0.5


@suite.hidden(
    "an IoU that equals the threshold",
    concept="strict comparison",
    note="Only an IoU greater than the threshold drops a box.",
)
def equal_threshold(rng: Rng):
    boxes = torch.tensor([[0.0, 0, 8, 4], [0, 0, 4, 4], [0, 2, 8, 4], [4, 0, 8, 4]])
    # Each of the others covers exactly half of the first one.
    return (
        boxes + rng.integer(-9, 9),
        torch.tensor([0.9, 0.5, 0.4, 0.3]),
        torch.zeros(4).long(),
        0.5,
    )


@suite.hidden(
    "a threshold of 1",
    edge="threshold = 1",
    concept="strict comparison",
    note="No IoU is greater than 1: nothing is dropped.",
)
def threshold_one(rng: Rng):
    boxes = rng.integers(0, 9, (6, 2)).float()
    boxes = torch.cat([boxes, boxes + 4], 1)
    return boxes.repeat(2, 1), distinct(rng, 12), torch.zeros(12).long(), 1.0


@suite.hidden(
    "a threshold of 0",
    edge="threshold = 0",
    concept="strict comparison",
    note="Boxes that only touch have an IoU of 0, which is not greater than 0.",
)
def threshold_zero(rng: Rng):
    x, y = torch.meshgrid(torch.arange(4.0), torch.arange(3.0), indexing="ij")
    corner = torch.stack([x.flatten(), y.flatten()], 1) * 5
    boxes = torch.cat([corner, corner + 5], 1)
    boxes[rng.integer(0, 12)] += 1
    return boxes, distinct(rng, 12), torch.zeros(12).long(), 0.0


@suite.hidden(
    "equal scores",
    concept="ties",
    note="Of equal scores the smaller index comes first. Is your sort stable?",
)
def ties(rng: Rng):
    boxes, _, classes, threshold = clear(rng, 120, 12, 0.5, kinds=2)
    return boxes, rng.integers(0, 3, (120,)).float() / 4, classes, threshold


@suite.hidden(
    "all scores equal", concept="ties", note="Then the boxes are taken in their own order."
)
def all_equal(rng: Rng):
    boxes, _, classes, threshold = clear(rng, 40, 5, 0.3)
    return boxes, torch.full((40,), 0.5), classes, threshold


@suite.hidden(
    "many classes in one place",
    concept="classes",
    note="A box drops boxes of its own class only.",
)
def many_classes(rng: Rng):
    return clear(rng, 40, 2, 0.4, kinds=6)


@suite.hidden(
    "classes with large and negative numbers",
    concept="classes",
    note="A class is a name. Moving boxes apart by its number fails if the number is large.",
)
def large_classes(rng: Rng):
    boxes, scores, which, threshold = clear(rng, 40, 2, 0.4, kinds=4)
    names = torch.tensor([-(2**61), 2**61, 2**61 + 1, -5])
    return boxes, scores, names[which], threshold


@suite.hidden(
    "boxes at negative coordinates",
    concept="classes",
    note="If you move classes apart, move them by more than the whole width of all boxes.",
)
def negative(rng: Rng):
    boxes, scores, classes, threshold = clear(rng, 30, 1, 0.4, kinds=3)
    step = torch.tensor([-60.0, -60.0, -60.0, -60.0])
    # Each class where its neighbour's boxes would come to lie after a shift that is too short.
    boxes = boxes - boxes.max() - 1 + classes[:, None] * step
    return boxes, scores, classes, threshold


@suite.hidden(
    "boxes far from the origin",
    concept="numerical accuracy",
    note="At 1,000,000 and with a shift for each class, float32 rounds the corners.",
)
def far(rng: Rng):
    while True:
        boxes, scores, classes, threshold = clear(rng, 40, 4, 0.4, kinds=5)
        boxes = boxes + 9e5
        if (iou(boxes) - threshold).abs().min() > 2e-4:
            return boxes, scores, classes * 50, threshold


@suite.hidden(
    "boxes without area",
    note="A box without area has the IoU 0 with every box, and 0 / 0 must not become NaN.",
)
def flat(rng: Rng):
    boxes, scores, classes, threshold = clear(rng, 12, 2, 0.3)
    boxes[3:6, 2] = boxes[3:6, 0]
    boxes[7] = boxes[8] = torch.tensor([1.0, 1, 1, 1])
    return boxes, scores, classes, threshold


@suite.hidden(
    "small boxes",
    note="Boxes narrower than a pixel overlap like others. Add nothing to their width.",
)
def small(rng: Rng):
    while True:
        boxes = heaps(rng, 20, 3) / 400
        if (iou(boxes) - 0.5).abs().min() > 2e-4:
            return boxes, distinct(rng, 20), torch.zeros(20).long(), 0.5


@suite.hidden("negative scores", note="Only the order of the scores matters.")
def negative_scores(rng: Rng):
    boxes, scores, classes, threshold = clear(rng, 20, 3, 0.5, kinds=2)
    return boxes, -1000 * scores, classes, threshold


@suite.hidden("float64 and views", concept="memory layout")
def double(rng: Rng):
    boxes, scores, classes, threshold = clear(rng, 30, 4, 0.5, kinds=2, dtype=torch.float64)
    return boxes.T.contiguous().T, scores.double().repeat(2, 1).T[:, 0], classes, threshold


@suite.generated("any boxes", times=3)
def any_boxes(rng: Rng):
    count = rng.integer(10, 80)
    threshold = rng.number(0.2, 0.8)
    return clear(rng, count, rng.integer(1, 12), threshold, kinds=rng.integer(1, 5))
