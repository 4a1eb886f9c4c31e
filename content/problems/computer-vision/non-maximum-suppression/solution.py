import torch


def suppress(
    boxes: torch.Tensor, scores: torch.Tensor, classes: torch.Tensor, threshold: float
) -> torch.Tensor:
    """Return the indices of the boxes that are kept, the best first."""
    order = scores.argsort(descending=True, stable=True)
    boxes, classes = boxes[order].double(), classes[order]
    clashes = (_iou(boxes) > threshold) & (classes[:, None] == classes)
    kept = torch.ones(len(boxes), dtype=torch.bool)
    for best in range(len(boxes)):
        # Only a box that is kept drops others, and only those that come after it.
        if kept[best]:
            kept[best + 1 :] &= ~clashes[best, best + 1 :]
    return order[kept]


def _iou(boxes: torch.Tensor) -> torch.Tensor:
    low = torch.maximum(boxes[:, None, :2], boxes[:, :2])
    high = torch.minimum(boxes[:, None, 2:], boxes[:, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    union = area[:, None] + area - shared
    return shared / union.where(union > 0, 1.0)
