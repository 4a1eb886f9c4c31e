# expect: wrong answer: values
import torch
from torch.nn import functional as F


def logistic_loss(features, labels, weight, bias, decay):
    sign = (2 * labels - 1).to(features.dtype)
    margin = sign * (features @ weight + bias)
    penalty = decay / 2 * (weight.square().sum() + bias.square())
    residual = -sign * torch.sigmoid(-margin) / len(labels)
    return (
        penalty - F.logsigmoid(margin).mean(),
        residual @ features + decay * weight,
        residual.sum() + decay * bias,
    )
