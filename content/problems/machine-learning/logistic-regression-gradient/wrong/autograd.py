# expect: runtime error
# Lets autograd do it, which is switched off here.
import torch
from torch.nn import functional as F


def logistic_loss(features, labels, weight, bias, decay):
    w, b = weight.clone().requires_grad_(), bias.clone().requires_grad_()
    margin = (2 * labels - 1) * (features @ w + b)
    loss = -F.logsigmoid(margin).mean() + decay / 2 * w.square().sum()
    return loss.detach(), *torch.autograd.grad(loss, (w, b))
