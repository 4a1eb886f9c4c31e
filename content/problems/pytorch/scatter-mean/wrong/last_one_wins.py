# expect: wrong answer: values
# An assignment through an index does not add up where the index repeats.
import torch


def group_means(values, groups, count):
    if len(groups) and (groups.min() < 0 or groups.max() >= count):
        raise ValueError("group index")
    sums = torch.zeros(count, values.shape[1], dtype=values.dtype)
    sums[groups] += values
    return sums / torch.bincount(groups, minlength=count).clamp(min=1)[:, None]
