# expect: wrong answer: values
# Mirrors edges as if they were pixels.
import torch


def area(boxes):
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def cut(image, top, left, height, width):
    rows, columns = image.shape[1:]
    up, down = max(top, 0), max(top, 0, min(top + height, rows))
    west, east = max(left, 0), max(left, 0, min(left + width, columns))
    crop = image.new_zeros(len(image), height, width)
    crop[:, up - top : down - top, west - left : east - left] = image[:, up:down, west:east]
    return crop


def crop_and_flip(image, boxes, top, left, height, width, flip, share):
    crop = cut(image, top, left, height, width)
    moved = (boxes - boxes.new_tensor([left, top, left, top])).clamp(min=0)
    moved = moved.minimum(boxes.new_tensor([width, height, width, height]))
    kept = ((area(moved) > 0) & (area(moved) >= share * area(boxes))).nonzero()[:, 0]
    moved = moved[kept]
    if flip:
        crop = crop.flip(2)
        x1, y1, x2, y2 = moved.unbind(1)
        moved = torch.stack([width - 1 - x2, y1, width - 1 - x1, y2], 1)
    return crop, moved, kept
