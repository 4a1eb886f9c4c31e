import torch
from torch.nn import functional as F


def quantize_blocks(
    weight: torch.Tensor, levels: torch.Tensor, block_size: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return packed 4-bit codes, the scale of each block, and the weights they restore."""
    if block_size < 1:
        raise ValueError(f"a block of {block_size} weights")
    count = weight.numel()
    # Zeros that fill the last block up change neither its scale nor anybody's code.
    flat = F.pad(weight.reshape(-1).float(), (0, -count % block_size))
    blocks = flat.reshape(-1, block_size)
    scales = blocks.abs().amax(dim=1)
    scaled = blocks / torch.where(scales > 0, scales, 1.0)[:, None]
    # A number on a boundary belongs to the bucket below.
    middles = (levels[:-1] + levels[1:]) / 2
    codes = torch.bucketize(scaled, middles)
    restored = (levels[codes] * scales[:, None]).reshape(-1)[:count]
    row = F.pad(codes.reshape(-1)[:count], (0, count % 2), value=int((middles < 0).sum()))
    packed = (row[::2] << 4 | row[1::2]).to(torch.uint8)
    return packed, scales, restored.reshape(weight.shape).to(weight.dtype)
