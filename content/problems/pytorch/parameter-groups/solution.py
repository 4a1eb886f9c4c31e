from torch import nn

NORMS = (
    nn.LayerNorm,
    nn.RMSNorm,
    nn.GroupNorm,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
)


def split_parameters(model: nn.Module) -> tuple[list[str], list[str]]:
    """Return the names of the parameters with and of those without weight decay."""
    decayed: list[str] = []
    kept: list[str] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        owner = model.get_submodule(name.rpartition(".")[0])
        matrix = parameter.dim() >= 2 and not isinstance(owner, NORMS)
        (decayed if matrix else kept).append(name)
    return decayed, kept
