# expect: wrong answer: type
from torch import nn

NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def split_parameters(model):
    decayed, kept = [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            owner = model.get_submodule(name.rpartition(".")[0])
            matrix = parameter.dim() >= 2 and not isinstance(owner, NORMS)
            (decayed if matrix else kept).append(parameter)
    return decayed, kept
