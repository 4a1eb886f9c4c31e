# expect: wrong answer: values
# Of equal values the last one.
import torch
from torch.nn import functional as F


def max_pool(images, kernel, stride, padding):
    n, c, height, width = images.shape
    (kh, kw), (ph, pw) = kernel, padding
    h, w = (height + 2 * ph - kh) // stride[0] + 1, (width + 2 * pw - kw) // stride[1] + 1
    if h < 1 or w < 1 or 2 * ph > kh or 2 * pw > kw:
        raise ValueError("sizes")
    rows = (torch.arange(h)[:, None] * stride[0] - ph + torch.arange(kh)).clamp(0, height - 1)
    columns = (torch.arange(w)[:, None] * stride[1] - pw + torch.arange(kw)).clamp(0, width - 1)
    index = (rows[:, None, :, None] * width + columns[None, :, None, :]).flatten(2)
    windows = images.flatten(2)[:, :, index]
    values = windows.amax(-1)
    return values, index.where(windows == values[..., None], -1).amax(-1)
