# expect: wrong answer: values
# The code of 0 is 7 in NF4, not in every set of levels.
import torch
from torch.nn import functional as F


def quantize_blocks(weight, levels, block_size):
    if block_size < 1:
        raise ValueError("block size")
    n = weight.numel()
    blocks = F.pad(weight.reshape(-1).float(), (0, -n % block_size)).reshape(-1, block_size)
    scales = blocks.abs().amax(1)
    middles = (levels[:-1] + levels[1:]) / 2
    codes = torch.bucketize(blocks / torch.where(scales > 0, scales, 1.0)[:, None], middles)
    restored = (levels[codes] * scales[:, None]).reshape(-1)[:n].reshape(weight.shape)
    row = F.pad(codes.reshape(-1)[:n], (0, n % 2), value=7)
    return (row[::2] << 4 | row[1::2]).to(torch.uint8), scales, restored.to(weight.dtype)
