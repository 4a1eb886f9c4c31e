# expect: wrong answer: values
# No infinity, but the loss has a lid.
import torch


def logistic_loss(features, labels, weight, bias, decay):
    y = labels.to(features.dtype)
    p = torch.sigmoid(features @ weight + bias)
    q = p.clamp(1e-7, 1 - 1e-7)
    loss = -(y * q.log() + (1 - y) * (1 - q).log()).mean() + decay / 2 * weight.square().sum()
    residual = (p - y) / len(y)
    return loss, residual @ features + decay * weight, residual.sum()
