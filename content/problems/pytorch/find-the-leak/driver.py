import weakref

import torch
from torch import nn


class Token:
    """Lives as long as the node of the graph that it is tied to."""


class Watched(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, alive):
        ctx.token = Token()
        alive.add(ctx.token)
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None


class Model(nn.Module):
    """A small model that counts which of its graphs are alive."""

    def __init__(self, width, out):
        super().__init__()
        torch.manual_seed(4)
        self.inner = nn.Sequential(nn.Linear(width, 6), nn.Tanh(), nn.Linear(6, out))
        self.alive = weakref.WeakSet()
        self.earlier = []
        self.recorded = []

    def forward(self, x):
        self.earlier.append(len(self.alive))
        self.recorded.append(torch.is_grad_enabled())
        return Watched.apply(self.inner(x), self.alive)


def drive(submission, batches, optimizer, rate):
    inputs, targets = batches[0]
    model = Model(inputs.shape[1], targets.shape[1]).to(inputs.dtype)
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[optimizer]
    result = submission.train_epoch(model, kind(model.parameters(), lr=rate), batches)
    predictions = result.get("predictions")
    return {
        "result": result,
        "predictions require a gradient": isinstance(predictions, torch.Tensor)
        and predictions.requires_grad,
        "graphs alive while the result is kept": len(model.alive),
        "more than one earlier graph alive in a forward pass": max(model.earlier) > 1,
        "forward passes with gradients": model.recorded,
        "parameters": {name: value.detach().clone() for name, value in model.named_parameters()},
    }
