# expect: runtime error | wrong answer: shape | wrong answer: no exception
# Counts the places as if the window were not spread out.
import torch
from torch.nn import functional as F


def unfold_convolution(images, weight, bias, stride, padding, dilation):
    kh, kw = weight.shape[2:]
    padded = F.pad(images, (padding[1], padding[1], padding[0], padding[0]))
    rows, places = (padded.shape[2] - kh) // stride[0] + 1, (padded.shape[3] - kw) // stride[1] + 1
    if rows < 1 or places < 1:
        raise ValueError("window")
    parts = []
    for u in range(kh):
        for v in range(kw):
            part = padded[:, :, u * dilation[0] :: stride[0], v * dilation[1] :: stride[1]]
            parts.append(part[:, :, :rows, :places])
    columns = torch.stack(parts, 2).reshape(len(images), weight[0].numel(), rows * places)
    output = weight.flatten(1) @ columns
    if bias is not None:
        output = output + bias[:, None]
    return columns, output.reshape(len(images), len(weight), rows, places)
