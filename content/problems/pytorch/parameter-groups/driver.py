import torch
from torch import nn

MAKERS = {
    "linear": nn.Linear,
    "linear without bias": lambda *sizes: nn.Linear(*sizes, bias=False),
    "embedding": nn.Embedding,
    "layer norm": lambda *shape: nn.LayerNorm(shape),
    "rms norm": lambda *shape: nn.RMSNorm(shape),
    "group norm": nn.GroupNorm,
    "batch norm": nn.BatchNorm1d,
    "convolution": nn.Conv1d,
    "activation": nn.ReLU,
    "parameter": lambda *shape: nn.Parameter(torch.zeros(shape)),
}


def build(parts, tied, frozen):
    """Make a model of (dotted name, kind, sizes)."""
    model = nn.Module()
    for name, kind, sizes in parts:
        made = MAKERS[kind](*sizes)
        if not name:
            return made
        *path, last = name.split(".")
        place = model
        for step in path:
            if not hasattr(place, step):
                place.add_module(step, nn.Module())
            place = getattr(place, step)
        setattr(place, last, made)
    for name, first in tied:
        model.get_submodule(name).weight = model.get_parameter(first)
    for name in frozen:
        model.get_parameter(name).requires_grad_(False)
    return model


def drive(submission, parts, tied, frozen):
    return submission.split_parameters(build(parts, tied, frozen))
