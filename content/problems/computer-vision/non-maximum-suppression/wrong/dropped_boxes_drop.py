# expect: wrong answer: values | wrong answer: shape
# Boxes that were dropped drop others.
import torch


def iou_of(boxes):
    low = torch.maximum(boxes[:, None, :2], boxes[:, :2])
    high = torch.minimum(boxes[:, None, 2:], boxes[:, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    return (shared / (area[:, None] + area - shared)).nan_to_num(0.0)


def suppress(boxes, scores, classes, threshold):
    order = scores.argsort(descending=True, stable=True)
    boxes, classes = boxes[order].double(), classes[order]
    clashes = (iou_of(boxes) > threshold) & (classes[:, None] == classes)
    return order[~clashes.tril(-1).any(1)]
