import math

import torch


def average_precision(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    images: torch.Tensor,
    truth: torch.Tensor,
    truth_images: torch.Tensor,
    threshold: float,
) -> float:
    """Return the area under the monotone precision over the recall."""
    if len(truth) == 0:
        return math.nan
    if len(boxes) == 0:
        return 0.0
    order = scores.argsort(descending=True, stable=True)
    overlaps = _iou(boxes[order].double(), truth.double())
    # A pair that may not be matched is given an overlap below every threshold.
    possible = (images[order, None] == truth_images) & (overlaps >= threshold)
    hits = _hits(overlaps.where(possible, -1.0))

    found = hits.double().cumsum(0)
    precision = found / torch.arange(1, len(hits) + 1)
    # The largest precision from here to the end: a running maximum from behind.
    envelope = precision.flip(0).cummax(0).values.flip(0)
    # The recall grows by 1 / G with each hit, and only there.
    return float(envelope[hits].sum() / len(truth))


def _hits(overlaps: torch.Tensor) -> torch.Tensor:
    """Return which detections match a box that no earlier one has matched."""
    overlaps = overlaps.clone()
    hits = torch.zeros(len(overlaps), dtype=torch.bool)
    for place, row in enumerate(overlaps):
        best = int(row.argmax())
        if row[best] >= 0:
            hits[place] = True
            overlaps[:, best] = -1.0
    return hits


def _iou(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    low = torch.maximum(a[:, None, :2], b[:, :2])
    high = torch.minimum(a[:, None, 2:], b[:, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (a, b)]
    return shared / (areas[0][:, None] + areas[1] - shared)
