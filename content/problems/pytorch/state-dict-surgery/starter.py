import torch
from torch import nn


def load_checkpoint(
    model: nn.Module, checkpoint: dict[str, torch.Tensor], renames: list[tuple[str, str]]
) -> dict[str, list[str]]:
    """Copy the checkpoint's values into the model; return what was loaded and what was not."""
    raise NotImplementedError
