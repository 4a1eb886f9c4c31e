# expect: wrong answer: values
# Gives the loop's variable a new value; the model never sees it.
def train(model, loss_function, inputs, targets, rate, steps):
    losses = []
    model.train()
    for _ in range(steps):
        model.zero_grad()
        loss = loss_function(model(inputs), targets)
        loss.backward()
        losses.append(loss.item())
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter = parameter - rate * parameter.grad
    model.eval()
    return losses
