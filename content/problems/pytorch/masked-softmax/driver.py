import torch


def drive(submission, scores, mask, weights):
    # The same memory without the mark, so that the argument itself stays as it is.
    leaf = scores.detach().requires_grad_()
    weight = submission.masked_softmax(leaf, mask)
    gradient = None
    if isinstance(weight, torch.Tensor) and weight.requires_grad and weight.shape == weights.shape:
        (gradient,) = torch.autograd.grad((weight * weights).sum(), leaf)
    return {"softmax": weight, "gradient": gradient}
