# expect: wrong answer: shape
# Only groups that occur get a row.
import torch


def group_means(values, groups, count):
    if len(groups) and (groups.min() < 0 or groups.max() >= count):
        raise ValueError("group index")
    rows = [values[groups == group].mean(0) for group in groups.unique()]
    return torch.stack(rows) if rows else values.new_zeros(0, values.shape[1])
