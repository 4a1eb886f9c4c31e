# expect: wrong answer: values
# Widens the filter where the image becomes smaller, as Pillow does.
import torch


def resize(images, height, width):
    if height < 1 or width < 1:
        raise ValueError("size")
    return matrix(images, 2, height) @ images @ matrix(images, 3, width).T


def matrix(images, dimension, size):
    old = images.shape[dimension]
    places = (torch.arange(size, dtype=torch.float64) + 0.5) * old / size - 0.5
    wide = max(1.0, old / size)
    weights = (1 - (torch.arange(old) - places[:, None]).abs() / wide).clamp(min=0)
    return (weights / weights.sum(1, keepdim=True)).to(images.dtype)
