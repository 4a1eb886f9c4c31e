# expect: wrong answer: values
# scatter_reduce with the zeros of the start counted as a member of each group.
import torch


def group_means(values, groups, count):
    if len(groups) and (groups.min() < 0 or groups.max() >= count):
        raise ValueError("group index")
    start = torch.zeros(count, values.shape[1], dtype=values.dtype)
    index = groups[:, None].expand(values.shape)
    return start.scatter_reduce(0, index, values, "mean", include_self=True)
