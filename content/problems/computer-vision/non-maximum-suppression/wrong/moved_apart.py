# expect: wrong answer: values | wrong answer: shape | runtime error
# Classes are moved apart by the largest coordinate, too little for negative ones.
import torch


def iou_of(boxes):
    low = torch.maximum(boxes[:, None, :2], boxes[:, :2])
    high = torch.minimum(boxes[:, None, 2:], boxes[:, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    return (shared / (area[:, None] + area - shared)).nan_to_num(0.0)


def suppress(boxes, scores, classes, threshold):
    if not len(boxes):
        return torch.empty(0, dtype=torch.int64)
    order = scores.argsort(descending=True, stable=True)
    boxes, classes = boxes[order], classes[order]
    moved = boxes + (classes * (boxes.max() + 1))[:, None]
    clashes = iou_of(moved) > threshold
    kept = torch.ones(len(boxes), dtype=torch.bool)
    for best in range(len(boxes)):
        if kept[best]:
            kept[best + 1 :] &= ~clashes[best, best + 1 :]
    return order[kept]
