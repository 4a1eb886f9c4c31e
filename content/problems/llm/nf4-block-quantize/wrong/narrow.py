# expect: wrong answer: values | wrong answer: dtype
# Divides in the type of the weights.
import torch
from torch.nn import functional as F


def quantize_blocks(weight, levels, block_size):
    if block_size < 1:
        raise ValueError("block size")
    n = weight.numel()
    blocks = F.pad(weight.reshape(-1), (0, -n % block_size)).reshape(-1, block_size)
    scales = blocks.abs().amax(1)
    middles = (levels[:-1] + levels[1:]) / 2
    scaled = blocks / torch.where(scales > 0, scales, torch.ones_like(scales))[:, None]
    codes = torch.bucketize(scaled.float(), middles)
    restored = (levels[codes] * scales[:, None]).reshape(-1)[:n].reshape(weight.shape)
    row = F.pad(codes.reshape(-1)[:n], (0, n % 2), value=int((middles < 0).sum()))
    packed = (row[::2] << 4 | row[1::2]).to(torch.uint8)
    return packed, scales.float(), restored.to(weight.dtype)
