# expect: wrong answer: shape | wrong answer: values | runtime error | wrong answer: no exception
# F.pad counts from the last dimension on.
import torch
from torch.nn import functional as F


def unfold_convolution(images, weight, bias, stride, padding, dilation):
    padded = F.pad(images, (padding[0], padding[0], padding[1], padding[1]))
    high, wide = dilation[0] * (weight.shape[2] - 1) + 1, dilation[1] * (weight.shape[3] - 1) + 1
    if high > padded.shape[2] or wide > padded.shape[3]:
        raise ValueError("window")
    windows = padded.unfold(2, high, stride[0]).unfold(3, wide, stride[1])
    windows = windows[..., :: dilation[0], :: dilation[1]]
    n, c, h, w, kh, kw = windows.shape
    columns = windows.permute(0, 1, 4, 5, 2, 3).reshape(n, c * kh * kw, h * w)
    output = weight.flatten(1) @ columns
    if bias is not None:
        output = output + bias[:, None]
    return columns, output.reshape(n, len(weight), h, w)
