# expect: wrong answer: values
# Asks for the loss again after the step.
import torch


def train(model, loss_function, inputs, targets, rate, steps):
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    losses = []
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        loss_function(model(inputs), targets).backward()
        optimizer.step()
        with torch.no_grad():
            losses.append(loss_function(model(inputs), targets).item())
    model.eval()
    return losses
