import torch
from torch import nn
from torch.nn import functional as F


class Counted(nn.Module):
    """Counts its calls and notes their mode."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.modes = []

    def forward(self, x):
        self.modes.append(self.training)
        return self.inner(x)


class Partial(nn.Module):
    """Has a layer that it does not use."""

    def __init__(self, width, classes):
        super().__init__()
        self.used = nn.Linear(width, classes)
        self.unused = nn.Linear(width, classes)

    def forward(self, x):
        return self.used(x)


def build(kind, width, out):
    torch.manual_seed(3)
    if kind == "linear":
        return nn.Linear(width, out)
    if kind == "deep":
        return nn.Sequential(nn.Linear(width, 8), nn.Tanh(), nn.Linear(8, out))
    if kind == "batch norm":
        return nn.Sequential(nn.Linear(width, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, out))
    if kind == "partly frozen":
        model = nn.Sequential(nn.Linear(width, 5), nn.Tanh(), nn.Linear(5, out))
        model[0].requires_grad_(False)
        return model
    return Partial(width, out)


def drive(submission, kind, out, loss, inputs, targets, rate, steps, stale):
    model = Counted(build(kind, inputs.shape[1], out).to(inputs.dtype))
    for parameter in model.parameters():
        if stale and parameter.requires_grad:
            parameter.grad = torch.full_like(parameter, 3.0)
    if stale and kind == "unused":
        for parameter in model.inner.unused.parameters():
            parameter.grad = None
    model.eval()
    function = {"mse": F.mse_loss, "cross entropy": F.cross_entropy}[loss]
    losses = submission.train(model, function, inputs, targets, rate, steps)
    return {
        "losses": losses,
        "calls in training mode": model.modes,
        "training mode afterwards": model.training,
        "state": {name: value.detach().clone() for name, value in model.inner.state_dict().items()},
    }
