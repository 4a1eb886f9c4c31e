"""What Etude makes of a configuration: the model with its adapter, loss, gradients, steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from configurations import ATTENTION, EMBEDDING, FUSED, LAYERS, MLP, NORM, Configuration
from torch import Tensor

from etude.tuning.adapters.inject import add_adapter
from etude.tuning.adapters.multi_adapter import adapter_parameters
from etude.tuning.config.sections.adapter import AdapterSpec
from etude.tuning.config.sections.model import ModelSpec
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.config.sections.train import TrainSpec
from etude.tuning.data.batch import Batch, Layout
from etude.tuning.data.encoded import EncodedSample
from etude.tuning.fusion.layout import row_layout
from etude.tuning.fusion.packed_attention import packed_rows
from etude.tuning.models.load import LoadedModel, load_model
from etude.tuning.models.unquantized import UnquantizedWeights
from etude.tuning.objectives.base import SFT
from etude.tuning.optim.optimizers import make_optimizer

LR = 1e-3
STEPS = 3


def modules_of(configuration: Configuration) -> tuple[str | list[str], list[str]]:
    """Return the names of the target modules and of those trained whole."""
    name = configuration.architecture
    embedding = EMBEDDING.get(name, "embed_tokens")
    attention = ATTENTION.get(name, ["q_proj", "v_proj"])
    targets: dict[str, str | list[str]] = {
        "attention": attention,
        "mlp": MLP.get(name, ["up_proj", "down_proj"]),
        "all-linear": "all-linear",
        "embedding": [embedding, attention[0]],
        "head": ["lm_head", attention[0]],
        "none": [],
        "one layer": [f"{LAYERS.get(name, 'model.layers')}.1.*.{attention[0]}"],
    }
    whole = {"norm": NORM.get(name, "norm"), "head": "lm_head", "embedding": embedding}
    return targets[configuration.targets], [whole[one] for one in configuration.saved]


def spec_of(configuration: Configuration) -> AdapterSpec:
    """Return the recipe's section."""
    targets, saved = modules_of(configuration)
    name = configuration.architecture
    first = ATTENTION.get(name, ["q_proj"])[0] if configuration.targets != "mlp" else "*.mlp.*"
    given: dict[str, Any] = {
        "kind": configuration.kind,
        "rank": configuration.rank,
        "alpha": configuration.alpha,
        "rslora": configuration.rslora,
        "target_modules": targets,
        "modules_to_save": saved,
        "init": configuration.init,
    }
    if configuration.experts:
        given["target_parameters"] = [f"experts.{name}" for name in configuration.experts]
    if configuration.patterns:
        given |= {"rank_pattern": {first: 3}, "alpha_pattern": {first: 5.0}}
    if configuration.init == "orthogonal":
        given |= {"rank": 2 * configuration.rank, "rank_pattern": {}}
    if configuration.bias != "none":
        given["bias"] = configuration.bias
    if configuration.layers:
        given["layers"] = list(configuration.layers)
    return AdapterSpec(**given)


def load(configuration: Configuration, folder: Path) -> LoadedModel:
    """Load the base as a run does."""
    tokens = [f"<new {number}>" for number in range(configuration.added)]
    model = ModelSpec(id=str(folder), dtype=configuration.dtype, add_tokens=tokens)
    return load_model(model, QuantSpec(kind=configuration.quant))


def adapted(configuration: Configuration, folder: Path) -> LoadedModel:
    """Load the base and add an adapter with values as training leaves them."""
    loaded = load(configuration, folder)
    with UnquantizedWeights(loaded.files) as original:
        add_adapter(
            loaded.model,
            spec_of(configuration),
            seed=configuration.seed,
            original=original,
            tokens=loaded.added.ids,
        )
    generator = torch.Generator().manual_seed(configuration.seed + 1)
    # A product of three factors is smaller than one of two: too small for bfloat16 to keep.
    spread = 0.2 if configuration.kind == "adalora" else 0.05
    with torch.no_grad():
        for parameter in adapter_parameters(loaded.model).values():
            parameter.add_(spread * torch.randn(parameter.shape, generator=generator))
    return loaded


class Counted:
    """What a layout said of fused layers, and how many ran."""

    def __init__(self) -> None:
        self.fusion: Any = None
        self.ran = 0


@contextmanager
def rows(model: Any, configuration: Configuration) -> Iterator[tuple[Layout, Counted]]:
    """Prepare a model for batches, with the fused layers or without them."""
    from etude.tuning.fusion import patch

    layout = Layout(packed=configuration.packed, pad_id=1)
    counted = Counted()
    inner = patch.decoder_layer

    def counting(*given: Any, **named: Any) -> Any:
        counted.ran += 1
        return inner(*given, **named)

    patch.decoder_layer = counting  # type: ignore[assignment]
    try:
        if configuration.packed and not configuration.fused:
            with packed_rows(model):
                yield layout, counted
            return
        with row_layout(model, layout) as fusion:
            counted.fusion = fusion
            yield layout, counted
    finally:
        patch.decoder_layer = inner


def to_be_fused(configuration: Configuration) -> bool:
    """Return whether all layers must run fused."""
    return (
        configuration.fused
        and configuration.architecture in FUSED
        and configuration.kind in ("lora", "vera", "adalora", "dora")
        and configuration.bias == "none"
    )


def loss_and_gradients(
    model: Any, configuration: Configuration, samples: Sequence[EncodedSample]
) -> tuple[float, dict[str, Tensor], Counted]:
    """Return the mean loss, the gradient of every trained tensor, and what ran fused."""
    objective, trained = SFT(), adapter_parameters(model)
    for parameter in trained.values():
        parameter.grad = None
    with rows(model, configuration) as (layout, counted):
        part = objective.loss(model, Batch(samples, layout), {})
        loss = part.total / objective.normalizer(samples)
        loss.backward()
    gradients = {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in trained.items()
    }
    return float(loss.detach()), gradients, counted


def steps(model: Any, configuration: Configuration, samples: Sequence[EncodedSample]) -> None:
    """Train the adapter for three steps."""
    optimizer = make_optimizer(TrainSpec(lr=LR), adapter_parameters(model))
    for _ in range(STEPS):
        loss_and_gradients(model, configuration, samples)
        optimizer.step()
