import math

import torch


def refused(*_, **__):
    raise RuntimeError("torch.amp is not to be used here")


def drive(submission, options, kind, weights, batches, script):
    """Train two weights by a script: one line of text a step, on one batch each."""
    # The class itself, by whatever name it was imported.
    library = torch.amp.GradScaler
    kept, library.__init__ = library.__init__, refused
    try:
        return train(submission.LossScaler(**options), kind, weights, batches, script)
    finally:
        library.__init__ = kept


def train(scaler, kind, weights, batches, script):
    first, second, unused = (torch.nn.Parameter(weight.clone()) for weight in weights)
    rate = 1e-38 if kind == "plain" else 0.1
    groups = [{"params": [unused, first]}, {"params": [second], "lr": rate / 2}]
    optimizer = {
        "momentum": lambda: torch.optim.SGD(groups, lr=rate, momentum=0.9),
        "adam": lambda: torch.optim.AdamW(groups, lr=rate),
        "plain": lambda: torch.optim.SGD(groups, lr=rate),
    }[kind]()
    told = [scaler.scale]
    for batch, line in zip(batches, script, strict=True):
        told.append(one_step(scaler, optimizer, (first, second), batch, line.split()))
    return told


def loss_of(first, second, batch, words):
    # In half precision, so that small gradients vanish and large ones overflow.
    hidden = (first.half() * batch.half()).float()
    loss = (hidden * second).square().mean()
    if "infinite" in words:
        loss = loss + (second * torch.tensor([math.inf] + [0.0] * (len(second) - 1))).sum()
    if "nan" in words:
        loss = loss + (first[-1:] * math.nan).sum()
    if "both" in words:
        loss = (
            loss + (second * torch.tensor([math.inf, -math.inf] + [0.0] * (len(second) - 2))).sum()
        )
    if "huge" in words:
        loss = loss + (second * 9e37).sum()
    return loss


def one_step(scaler, optimizer, parameters, batch, words):
    first, second = parameters
    if "alone" in words:  # the second weight has no gradient
        second = second.detach()
    for part in batch.chunk(2) if "accumulated" in words else [batch]:
        returned = scaler.backward(loss_of(first, second, part, words))
        if returned is not None:
            return "backward returns something"
    seen = {"gradients": grads(parameters)}
    if "clipped" in words or "replaced" in words:
        if scaler.unscale(optimizer) is not None:
            return "unscale returns something"
        seen["unscaled"] = grads(parameters)
        if "replaced" in words:
            for parameter in parameters:
                parameter.grad.nan_to_num_(0.0, 0.0, 0.0)
        else:
            torch.nn.utils.clip_grad_norm_(parameters, 0.5)
    if "twice" in words:
        try:
            scaler.unscale(optimizer)
            seen["second unscale"] = "no error"
        except RuntimeError:
            seen["second unscale"] = "RuntimeError"
        seen["after the second unscale"] = grads(parameters)
    seen["taken"] = scaler.step(optimizer)
    seen["gradients afterwards"] = grads(parameters)
    optimizer.zero_grad()
    seen["scale"] = scaler.scale
    seen["weights"] = [parameter.detach().clone() for parameter in parameters]
    seen["state"] = [
        {name: torch.as_tensor(value).clone() for name, value in state.items() if value is not None}
        for state in optimizer.state.values()
    ]
    return seen


def grads(parameters):
    return [None if p.grad is None else p.grad.clone() for p in parameters]
