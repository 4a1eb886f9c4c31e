# expect: wrong answer: values
# Places in float32 are not good enough for float64.
import torch


def resize(images, height, width):
    if height < 1 or width < 1:
        raise ValueError("size")
    return along(along(images, 2, height), 3, width)


def along(images, dimension, size):
    old = images.shape[dimension]
    places = ((torch.arange(size) + 0.5) * old / size - 0.5).clamp(min=0)
    first = places.long()
    second = (first + 1).clamp(max=old - 1)
    shape = [1] * images.ndim
    shape[dimension] = size
    weight = (places - first).to(images.dtype).reshape(shape)
    one, other = images.index_select(dimension, first), images.index_select(dimension, second)
    return one * (1 - weight) + other * weight
