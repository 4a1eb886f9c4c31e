# expect: wrong answer: values
# The rule of align_corners=True.
import torch


def resize(images, height, width):
    if height < 1 or width < 1:
        raise ValueError("size")
    return along(along(images, 2, height), 3, width)


def along(images, dimension, size):
    old = images.shape[dimension]
    places = torch.arange(size, dtype=torch.float64) * (old - 1) / max(1, size - 1)
    first = places.long()
    second = (first + 1).clamp(max=old - 1)
    shape = [1] * images.ndim
    shape[dimension] = size
    weight = (places - first).to(images.dtype).reshape(shape)
    one, other = images.index_select(dimension, first), images.index_select(dimension, second)
    return one * (1 - weight) + other * weight
