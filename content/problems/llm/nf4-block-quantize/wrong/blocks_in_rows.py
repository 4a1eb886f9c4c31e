# expect: wrong answer: values | wrong answer: shape
# Starts a new block with each row.
import torch
from torch.nn import functional as F


def quantize_blocks(weight, levels, block_size):
    if block_size < 1:
        raise ValueError("block size")
    n, width = weight.numel(), weight.shape[-1]
    rows = F.pad(weight.reshape(-1, width).float(), (0, -width % block_size))
    blocks = rows.reshape(-1, block_size)
    scales = blocks.abs().amax(1)
    middles = (levels[:-1] + levels[1:]) / 2
    codes = torch.bucketize(blocks / torch.where(scales > 0, scales, 1.0)[:, None], middles)
    restored = (levels[codes] * scales[:, None]).reshape(rows.shape)[:, :width]
    row = codes.reshape(rows.shape)[:, :width].reshape(-1)
    row = F.pad(row, (0, n % 2), value=int((middles < 0).sum()))
    packed = (row[::2] << 4 | row[1::2]).to(torch.uint8)
    return packed, scales, restored.reshape(weight.shape).to(weight.dtype)
