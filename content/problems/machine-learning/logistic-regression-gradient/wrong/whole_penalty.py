# expect: wrong answer: values
# Without the half, the gradient of the penalty is twice as large.
import torch
from torch.nn import functional as F


def logistic_loss(features, labels, weight, bias, decay):
    sign = (2 * labels - 1).to(features.dtype)
    margin = sign * (features @ weight + bias)
    loss = -F.logsigmoid(margin).mean() + decay * weight.square().sum()
    residual = -sign * torch.sigmoid(-margin) / len(labels)
    return loss, residual @ features + 2 * decay * weight, residual.sum()
