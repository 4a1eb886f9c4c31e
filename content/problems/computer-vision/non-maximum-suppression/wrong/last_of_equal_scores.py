# expect: wrong answer: values | wrong answer: shape
# Turning an ascending order round turns equal scores round, too.
import torch


def iou_of(boxes):
    low = torch.maximum(boxes[:, None, :2], boxes[:, :2])
    high = torch.minimum(boxes[:, None, 2:], boxes[:, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    return (shared / (area[:, None] + area - shared)).nan_to_num(0.0)


def suppress(boxes, scores, classes, threshold):
    order = scores.argsort(stable=True).flip(0)
    boxes, classes = boxes[order].double(), classes[order]
    clashes = (iou_of(boxes) > threshold) & (classes[:, None] == classes)
    kept = torch.ones(len(boxes), dtype=torch.bool)
    for best in range(len(boxes)):
        if kept[best]:
            kept[best + 1 :] &= ~clashes[best, best + 1 :]
    return order[kept]
