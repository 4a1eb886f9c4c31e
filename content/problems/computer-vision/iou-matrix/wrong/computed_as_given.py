# expect: wrong answer: values | wrong answer: not finite | wrong answer: dtype | runtime error
# Subtracts in the type that comes in.
import torch


def iou_matrix(a, b):
    def area(boxes):
        return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)

    low = torch.maximum(a[:, None, :2], b[None, :, :2])
    high = torch.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = area(torch.cat([low, high], -1))
    union = area(a)[:, None] + area(b)[None] - shared
    return (shared / union).nan_to_num(0.0)
