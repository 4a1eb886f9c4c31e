"""What the tests of adapters share: small models, random adapters, logits."""

from __future__ import annotations

import torch

from etude.tuning.adapters.multi_adapter import adapter_parameters
from etude.tuning.config.sections.model import ModelSpec
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.models.load import ModelOrigin, load_model

ORIGIN = ModelOrigin("some/model", "somewhere", "ab" * 32)


def randomize(model: torch.nn.Module, std: float = 0.1, seed: int = 0) -> None:
    """Give every factor random values, as training would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapter_parameters(model).values():
            parameter.copy_(std * torch.randn(parameter.shape, generator=generator))


def load_tiny(folder, quant: str = "none", dtype: str = "float32"):
    return load_model(ModelSpec(id=str(folder), dtype=dtype), QuantSpec(kind=quant))


def logits(model, ids=None) -> torch.Tensor:
    ids = torch.arange(3, 40)[None] if ids is None else ids
    with torch.no_grad():
        return model(input_ids=ids).logits.float()
