# expect: wrong answer: values
# The penalty is divided by N as well.
import torch
from torch.nn import functional as F


def logistic_loss(features, labels, weight, bias, decay):
    sign = (2 * labels - 1).to(features.dtype)
    margin = sign * (features @ weight + bias)
    loss = -F.logsigmoid(margin).mean() + decay / 2 * weight.square().mean()
    residual = -sign * torch.sigmoid(-margin) / len(labels)
    return loss, residual @ features + decay * weight / len(weight), residual.sum()
