# expect: wrong answer: values
# Takes corners for pixels that belong to the box.
import torch


def iou_matrix(a, b):
    kind = a.dtype if a.is_floating_point() else torch.float32
    a, b = a.double(), b.double()
    low = torch.maximum(a[:, None, :2], b[None, :, :2])
    high = torch.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = (high - low + 1).clamp(min=0).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2] + 1).clamp(min=0).prod(-1) for boxes in (a, b)]
    union = areas[0][:, None] + areas[1][None] - shared
    return (shared / union.where(union > 0, 1.0)).to(kind)
