# expect: wrong answer: values
# Stable for large numbers, but 1 - 1 is 0 for confident right answers.
import torch
from torch.nn import functional as F


def logistic_loss(features, labels, weight, bias, decay):
    y = labels.to(features.dtype)
    z = features @ weight + bias
    loss = F.binary_cross_entropy_with_logits(z, y) + decay / 2 * weight.square().sum()
    residual = (torch.sigmoid(z) - y) / len(y)
    return loss, residual @ features + decay * weight, residual.sum()
