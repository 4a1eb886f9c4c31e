# expect: runtime error
# Takes for granted that each parameter has a gradient.
import torch


def train(model, loss_function, inputs, targets, rate, steps):
    losses = []
    model.train()
    for _ in range(steps):
        model.zero_grad()
        loss = loss_function(model(inputs), targets)
        loss.backward()
        losses.append(loss.item())
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= rate * parameter.grad
    model.eval()
    return losses
