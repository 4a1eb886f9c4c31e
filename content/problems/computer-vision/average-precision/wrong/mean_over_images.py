# expect: wrong answer: values
# The mean of each image's own average precision.
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
    parts = []
    for image in truth_images.unique():
        mine = (images == image).nonzero()[:, 0]
        order = mine[scores[mine].argsort(descending=True, stable=True)]
        overlaps = overlaps_of(boxes[order].double(), truth[truth_images == image].double())
        overlaps = overlaps.where(overlaps >= threshold, -1.0)
        hits = torch.zeros(len(order), dtype=torch.bool)
        for place in range(len(order)):
            best = int(overlaps[place].argmax())
            if overlaps[place, best] >= 0:
                hits[place] = True
                overlaps[:, best] = -1.0
        if not len(order):
            parts.append(0.0)
            continue
        precision = hits.double().cumsum(0) / torch.arange(1, len(hits) + 1)
        envelope = precision.flip(0).cummax(0).values.flip(0)
        parts.append(float(envelope[hits].sum()) / int((truth_images == image).sum()))
    return sum(parts) / len(parts)
