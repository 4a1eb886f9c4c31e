# expect: wrong answer: values
# Gradients of all steps add up.
import torch


def train(model, loss_function, inputs, targets, rate, steps):
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    losses = []
    model.train()
    for _ in range(steps):
        loss = loss_function(model(inputs), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    return losses
