# expect: wrong answer: no exception
# -1 becomes the last group.
import torch


def group_means(values, groups, count):
    if (groups >= count).any():
        raise ValueError("group index")
    groups = groups % count
    sums = torch.zeros(count, values.shape[1], dtype=values.dtype).index_add(0, groups, values)
    return sums / torch.bincount(groups, minlength=count).clamp(min=1)[:, None]
