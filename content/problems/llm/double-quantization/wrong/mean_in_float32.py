# expect: wrong answer: values
# A sum in float32 is a few steps off, and codes near 0 move.
import torch
from torch.nn import functional as F


def double_quantize(scales, levels, count, group_size=256):
    total = len(scales)
    if total < 1 or count < 1 or group_size < 1:
        raise ValueError("sizes")
    mean = torch.zeros(())
    for scale in scales:
        mean = mean + scale
    mean = mean / total
    groups = F.pad(scales - mean, (0, -total % group_size)).reshape(-1, group_size)
    largest = groups.abs().amax(1)
    scaled = groups / torch.where(largest > 0, largest, 1.0)[:, None]
    codes = torch.bucketize(scaled, (levels[:-1] + levels[1:]) / 2)
    restored = levels[codes] * largest[:, None] + mean
    bits = (8 * -(-count // 2) + 8 * total + 32 * len(largest) + 32) / count
    return {
        "codes": codes.reshape(-1)[:total].to(torch.uint8),
        "group_scales": largest,
        "mean": mean,
        "restored": restored.reshape(-1)[:total],
        "bits": bits,
    }
