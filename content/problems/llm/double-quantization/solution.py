import torch
from torch.nn import functional as F


def double_quantize(
    scales: torch.Tensor, levels: torch.Tensor, count: int, group_size: int = 256
) -> dict[str, torch.Tensor | float]:
    """Return 8-bit codes of block scales, what restores them, and the bits for each weight."""
    total = len(scales)
    if total < 1 or count < 1 or group_size < 1:
        raise ValueError(f"{total} scales, {count} weights, groups of {group_size}")
    mean = scales.double().mean().float()
    # Differences of 0 fill the last group up, after the mean is known.
    groups = F.pad(scales - mean, (0, -total % group_size)).reshape(-1, group_size)
    largest = groups.abs().amax(dim=1)
    scaled = groups / torch.where(largest > 0, largest, 1.0)[:, None]
    codes = torch.bucketize(scaled, (levels[:-1] + levels[1:]) / 2)
    restored = levels[codes] * largest[:, None] + mean
    stored = 8 * -(-count // 2) + 8 * total + 32 * len(largest) + 32
    return {
        "codes": codes.reshape(-1)[:total].to(torch.uint8),
        "group_scales": largest,
        "mean": mean,
        "restored": restored.reshape(-1)[:total],
        "bits": stored / count,
    }
