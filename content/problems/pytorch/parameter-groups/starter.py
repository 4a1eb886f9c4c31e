from torch import nn


def split_parameters(model: nn.Module) -> tuple[list[str], list[str]]:
    """Return the names of the parameters with and of those without weight decay."""
    raise NotImplementedError
