"""Batch normalisation with the statistics of pretraining, in training as well.

In training mode it would normalise by each micro-batch, so that a sample's loss depended on the
samples beside it, and would change the running statistics of a base that is frozen: they would be
lost with it, for an adapter holds none (https://github.com/huggingface/peft/issues/637).
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]


def freeze_statistics(model: nn.Module) -> int:
    """Keep every batch normalisation of `model` in evaluation mode, whatever mode the model is in.

    Returns:
        How many there are.
    """
    found = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    for module in found:
        _keep_evaluating(module)
    return len(found)


def _keep_evaluating(module: Any) -> None:
    def train(mode: bool = True) -> Any:
        del mode
        return module

    module.eval()
    module.train = train
