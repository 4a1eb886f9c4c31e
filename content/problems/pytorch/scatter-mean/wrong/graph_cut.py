# expect: wrong answer: type
# Right numbers, but no gradient reaches the values.
import torch


def group_means(values, groups, count):
    if len(groups) and (groups.min() < 0 or groups.max() >= count):
        raise ValueError("group index")
    sums = torch.zeros(count, values.shape[1], dtype=values.dtype)
    for row, group in zip(values.detach(), groups):
        sums[group] += row
    return sums / torch.bincount(groups, minlength=count).clamp(min=1)[:, None]
