from functools import partial

import torch
from torch import nn


def record_activations(
    model: nn.Module, inputs: torch.Tensor
) -> list[tuple[str, tuple[int, ...], float]]:
    """Return (name, shape, mean) of the output of each call of a leaf of `model`."""
    records: list[tuple[str, tuple[int, ...], float]] = []

    def note(name: str, _module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        records.append((name, tuple(output.shape), output.mean().item()))

    handles = [
        # partial keeps each module's own name; a closure would see the last one only.
        module.register_forward_hook(partial(note, name))
        for name, module in model.named_modules()
        if not list(module.children())
    ]
    try:
        with torch.no_grad():
            model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return records
