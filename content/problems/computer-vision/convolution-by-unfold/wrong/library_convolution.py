# expect: runtime error
# Right numbers by the very operation that is to be written.
import torch
from torch.nn import functional as F


def unfold_convolution(images, weight, bias, stride, padding, dilation):
    if any(
        (d * (k - 1) + 1) > size + 2 * p
        for d, k, size, p in zip(dilation, weight.shape[2:], images.shape[2:], padding)
    ):
        raise ValueError
    columns = F.unfold(images, weight.shape[2:], dilation, padding, stride)
    return columns, F.conv2d(images, weight, bias, stride, padding, dilation)
