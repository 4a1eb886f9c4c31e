import torch


def drive(submission, values, groups, count, weights):
    # The same memory without the mark, so that the argument itself stays as it is.
    leaf = values.detach().requires_grad_()
    means = submission.group_means(leaf, groups, count)
    gradient = None
    if isinstance(means, torch.Tensor) and means.requires_grad and means.shape == weights.shape:
        (gradient,) = torch.autograd.grad((means * weights).sum(), leaf)
    return {"means": means, "gradient": gradient}
