# expect: wrong answer: values
# The nearest pixel instead of a mix.
import torch


def resize(images, height, width):
    if height < 1 or width < 1:
        raise ValueError("size")
    return along(along(images, 2, height), 3, width)


def along(images, dimension, size):
    old = images.shape[dimension]
    places = ((torch.arange(size, dtype=torch.float64) + 0.5) * old / size - 0.5).clamp(min=0)
    first = (places + 0.5).long().clamp(max=old - 1)
    second = first
    shape = [1] * images.ndim
    shape[dimension] = size
    weight = (places - first).to(images.dtype).reshape(shape)
    one, other = images.index_select(dimension, first), images.index_select(dimension, second)
    return one * (1 - weight) + other * weight
