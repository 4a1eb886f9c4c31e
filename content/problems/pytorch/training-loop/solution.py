from collections.abc import Callable

import torch
from torch import nn


def train(
    model: nn.Module,
    loss_function: Callable,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    rate: float,
    steps: int,
) -> list[float]:
    """Train `model` in place on all samples at once; return the loss before each step."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=rate) if trained else None
    losses: list[float] = []
    model.train()
    for _ in range(steps):
        loss = loss_function(model(inputs), targets)
        losses.append(loss.item())
        if optimizer is not None:
            # Right before backward: what was there before, from whatever work, does not count.
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval()
    return losses
