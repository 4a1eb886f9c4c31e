# expect: wrong answer: not finite
# Takes the logarithm of probabilities that are exactly 0 or 1.
import torch


def logistic_loss(features, labels, weight, bias, decay):
    y = labels.to(features.dtype)
    p = torch.sigmoid(features @ weight + bias)
    loss = -(y * p.log() + (1 - y) * (1 - p).log()).mean() + decay / 2 * weight.square().sum()
    residual = (p - y) / len(y)
    return loss, residual @ features + decay * weight, residual.sum()
