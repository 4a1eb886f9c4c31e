import torch


def drive(submission, x, scale, low, high, weights):
    function = submission.RoundThrough
    # The same memory without the mark, so that the argument itself stays as it is.
    leaf = x.detach().requires_grad_()
    rounded = function.apply(leaf, scale, low, high)
    (gradient,) = torch.autograd.grad((rounded * weights).sum(), leaf)
    return {
        "rounded": rounded.detach(),
        "gradient": gradient,
        "is a Function": issubclass(function, torch.autograd.Function),
    }
