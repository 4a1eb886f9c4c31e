# expect: wrong answer: values
# Clears after each step, so what was left over before the first one still counts.
import torch


def train(model, loss_function, inputs, targets, rate, steps):
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    losses = []
    model.train()
    for _ in range(steps):
        loss = loss_function(model(inputs), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    model.eval()
    return losses
