# expect: runtime error
# Right, but one step for each place of the window.
import torch
from torch.nn import functional as F


def unfold_convolution(images, weight, bias, stride, padding, dilation):
    padded = F.pad(images, (padding[1], padding[1], padding[0], padding[0]))
    high, wide = dilation[0] * (weight.shape[2] - 1) + 1, dilation[1] * (weight.shape[3] - 1) + 1
    if high > padded.shape[2] or wide > padded.shape[3]:
        raise ValueError("window")
    rows, places = (
        (padded.shape[2] - high) // stride[0] + 1,
        (padded.shape[3] - wide) // stride[1] + 1,
    )
    columns = []
    for i in range(rows):
        for j in range(places):
            top, left = i * stride[0], j * stride[1]
            window = padded[:, :, top : top + high : dilation[0], left : left + wide : dilation[1]]
            columns.append(window.flatten(1))
    columns = torch.stack(columns, -1)
    output = weight.flatten(1) @ columns
    if bias is not None:
        output = output + bias[:, None]
    return columns, output.reshape(len(images), len(weight), rows, places)
