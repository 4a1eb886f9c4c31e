import torch


def group_means(values: torch.Tensor, groups: torch.Tensor, count: int) -> torch.Tensor:
    """Return the mean of the rows of each group; zeros for a group without rows."""
    if ((groups < 0) | (groups >= count)).any():
        raise ValueError(f"group indices must lie between 0 and {count - 1}")
    sums = values.new_zeros(count, values.shape[1]).index_add(0, groups, values)
    sizes = torch.bincount(groups, minlength=count)
    # An empty group has the sum 0: divided by 1 it stays 0, divided by 0 it were NaN.
    return sums / sizes.clamp(min=1)[:, None]
