# expect: wrong answer: values | wrong answer: shape
import torch
from torch.nn import functional as F


def double_quantize(scales, levels, count, group_size=256):
    total = len(scales)
    if total < 1 or count < 1 or group_size < 1:
        raise ValueError("sizes")
    rows = F.pad(scales, (0, -total % group_size)).reshape(-1, group_size)
    mean = rows.double().mean(1, keepdim=True).float()
    groups = rows - mean
    largest = groups.abs().amax(1)
    scaled = groups / torch.where(largest > 0, largest, 1.0)[:, None]
    codes = torch.bucketize(scaled, (levels[:-1] + levels[1:]) / 2)
    restored = levels[codes] * largest[:, None] + mean
    bits = (8 * -(-count // 2) + 8 * total + 32 * len(largest) + 32) / count
    return {
        "codes": codes.reshape(-1)[:total].to(torch.uint8),
        "group_scales": largest,
        "mean": mean.mean(),
        "restored": restored.reshape(-1)[:total],
        "bits": bits,
    }
