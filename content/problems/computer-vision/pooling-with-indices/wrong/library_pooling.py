# expect: runtime error
import torch
from torch.nn import functional as F


def max_pool(images, kernel, stride, padding):
    n, c, height, width = images.shape
    (kh, kw), (ph, pw) = kernel, padding
    h, w = (height + 2 * ph - kh) // stride[0] + 1, (width + 2 * pw - kw) // stride[1] + 1
    if h < 1 or w < 1 or 2 * ph > kh or 2 * pw > kw:
        raise ValueError("sizes")
    return F.max_pool2d(images, kernel, stride, padding, return_indices=True)
