# expect: wrong answer: values
# The maximum up to here instead of from here on.
import math

import torch


def overlaps_of(a, b):
    low = torch.maximum(a[:, None, :2], b[:, :2])
    high = torch.minimum(a[:, None, 2:], b[:, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (a, b)]
    return shared / (areas[0][:, None] + areas[1] - shared)


def average_precision(boxes, scores, images, truth, truth_images, threshold):
    if len(truth) == 0:
        return math.nan
    if len(boxes) == 0:
        return 0.0
    order = scores.argsort(descending=True, stable=True)
    overlaps = overlaps_of(boxes[order].double(), truth.double())
    overlaps = overlaps.where((images[order, None] == truth_images) & (overlaps >= threshold), -1.0)
    hits = torch.zeros(len(order), dtype=torch.bool)
    taken = set()
    for place in range(len(order)):
        row = overlaps[place]
        best = int(row.argmax())
        if row[best] >= 0:
            hits[place] = True
            overlaps[:, best] = -1.0
    precision = hits.double().cumsum(0) / torch.arange(1, len(hits) + 1)
    envelope = precision.flip(0).cummax(0).values.flip(0)
    return float(precision.cummax(0).values[hits].sum() / len(truth))
