# expect: wrong answer: values
# The places of the kernel before the channels: right output, other columns.
import torch
from torch.nn import functional as F


def unfold_convolution(images, weight, bias, stride, padding, dilation):
    padded = F.pad(images, (padding[1], padding[1], padding[0], padding[0]))
    high, wide = dilation[0] * (weight.shape[2] - 1) + 1, dilation[1] * (weight.shape[3] - 1) + 1
    if high > padded.shape[2] or wide > padded.shape[3]:
        raise ValueError("window")
    windows = padded.unfold(2, high, stride[0]).unfold(3, wide, stride[1])
    windows = windows[..., :: dilation[0], :: dilation[1]]
    n, c, h, w, kh, kw = windows.shape
    columns = windows.permute(0, 4, 5, 1, 2, 3).reshape(n, c * kh * kw, h * w)
    output = weight.permute(0, 2, 3, 1).flatten(1) @ columns
    if bias is not None:
        output = output + bias[:, None]
    return columns, output.reshape(n, len(weight), h, w)
