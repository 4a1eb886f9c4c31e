# expect: wrong answer: values
# A padded place ties with minus infinity, or with 0 in unsigned bytes, and may win.
import torch
from torch.nn import functional as F


def max_pool(images, kernel, stride, padding):
    n, c, height, width = images.shape
    (kh, kw), (ph, pw) = kernel, padding
    h, w = (height + 2 * ph - kh) // stride[0] + 1, (width + 2 * pw - kw) // stride[1] + 1
    if h < 1 or w < 1 or 2 * ph > kh or 2 * pw > kw:
        raise ValueError("sizes")
    fill = -float("inf") if images.is_floating_point() else torch.iinfo(images.dtype).min
    padded = F.pad(images, (pw, pw, ph, ph), value=fill)
    windows = padded.unfold(2, kh, stride[0]).unfold(3, kw, stride[1]).reshape(n, c, h, w, kh * kw)
    values, place = windows.max(-1)
    place = windows.eq(values[..., None]).to(torch.uint8).argmax(-1)
    rows = torch.arange(h)[:, None] * stride[0] - ph
    columns = torch.arange(w) * stride[1] - pw
    return values, (rows + place // kw) * width + columns + place % kw
