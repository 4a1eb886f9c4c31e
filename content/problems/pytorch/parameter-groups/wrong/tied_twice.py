# expect: wrong answer: shape
# Goes through the modules and meets a tied parameter again.
from torch import nn

NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def split_parameters(model):
    decayed, kept = [], []
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(path, recurse=False):
            if parameter.requires_grad:
                matrix = parameter.dim() >= 2 and not isinstance(module, NORMS)
                (decayed if matrix else kept).append(name)
    return decayed, kept
