# expect: runtime error
# Counts on a multiple of the block size.
import torch


def quantize_blocks(weight, levels, block_size):
    if block_size < 1:
        raise ValueError("block size")
    blocks = weight.reshape(-1, block_size).float()
    scales = blocks.abs().amax(1)
    middles = (levels[:-1] + levels[1:]) / 2
    codes = torch.bucketize(blocks / torch.where(scales > 0, scales, 1.0)[:, None], middles)
    restored = (levels[codes] * scales[:, None]).reshape(weight.shape)
    row = codes.reshape(-1)
    return (row[::2] << 4 | row[1::2]).to(torch.uint8), scales, restored.to(weight.dtype)
