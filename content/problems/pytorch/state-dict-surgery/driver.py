import torch
from torch import nn


def build(kind, width):
    if kind == "empty":
        return nn.ReLU()
    if kind == "norm":
        model = nn.Sequential(nn.Linear(width, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    else:
        model = nn.Module()
        model.embed = nn.Embedding(5, width)
        model.body = nn.Module()
        model.body.norm = nn.LayerNorm(width)
        model.body.mix = nn.Linear(width, width)
        model.head = nn.Linear(width, 5, bias=False)
        model.body.register_buffer("angles", torch.ones(width), persistent=False)
    if kind in ("tied", "half"):
        model.head.weight = model.embed.weight
    if kind == "frozen":
        model.embed.requires_grad_(False)
        model.body.requires_grad_(False)
    if kind == "half":
        model.half()
    with torch.no_grad():
        for index, value in enumerate(model.state_dict().values()):
            value.fill_(100 + index)
    return model


def drive(submission, kind, width, checkpoint, renames, caught):
    """`caught` asks for the model after the error instead of the error."""
    model = build(kind, width)
    before = dict(model.named_parameters(remove_duplicate=False))
    addresses = {name: value.data_ptr() for name, value in before.items()}
    learning = {name: value.requires_grad for name, value in before.items()}
    report, refused = None, False
    try:
        report = submission.load_checkpoint(model, checkpoint, renames)
    except ValueError:
        if not caught:
            raise
        refused = True
    after = dict(model.named_parameters(remove_duplicate=False))
    return {
        "refused": refused,
        "report": report,
        "model": {name: value.detach().clone() for name, value in model.state_dict().items()},
        "same parameters": list(before) == list(after)
        and all(before[name] is after[name] for name in before),
        "same memory": addresses == {name: value.data_ptr() for name, value in after.items()},
        "same gradients asked for": learning
        == {name: value.requires_grad for name, value in after.items()},
        "all leaves": all(value.is_leaf for value in after.values()),
    }
