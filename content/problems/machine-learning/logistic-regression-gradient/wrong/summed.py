# expect: wrong answer: values
# The gradient of the sum, beside the mean of the loss.
import torch
from torch.nn import functional as F


def logistic_loss(features, labels, weight, bias, decay):
    sign = (2 * labels - 1).to(features.dtype)
    margin = sign * (features @ weight + bias)
    loss = -F.logsigmoid(margin).mean() + decay / 2 * weight.square().sum()
    residual = -sign * torch.sigmoid(-margin)
    return loss, residual @ features + decay * weight, residual.sum()
