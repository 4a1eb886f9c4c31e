"""What a run writes down for people: data.json, before.json, samples.jsonl, summary.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from etude.tuning.adapters.multi_adapter import AdaptedModule, adapter_parameters
from etude.tuning.data.encoded import EncodedSet
from etude.tuning.data.inspect import html_sample
from etude.tuning.metrics.metric import Metric
from etude.tuning.models.load import LoadedModel
from etude.tuning.quant.linear import QuantLinear
from etude.tuning.runs.folder import RunFolder
from etude.tuning.training.measurement import Measurement
from etude.tuning.training.trainer import TrainingResult


@dataclass(frozen=True)
class PreparedData:
    """Encoded data, and what was left out."""

    train: EncodedSet
    eval: EncodedSet
    encoder: Any
    """What the task encodes with; predictions are made with the same."""
    notes: list[str] = field(default_factory=list[str])
    facts: Mapping[str, int | float | str] = field(default_factory=dict[str, int | float | str])
    """Further lines of the data's table: samples by class."""
    general: EncodedSet | None = None
    """Evaluation data outside the domain, for language modelling."""
    system: str | None = None
    """System message of every training conversation, if it is one and the same."""


def describe_data(data: PreparedData, tokenizer: Any) -> dict[str, Any]:
    """Return data.json: totals, the length histogram and a coloured sample."""
    stats = data.train.stats
    if data.train.samples[0].image is not None:
        return _describe_images(data)
    histogram = stats.histogram
    return {
        "totals": {
            "training samples": stats.samples,
            "evaluation samples": data.eval.stats.samples,
            "tokens": stats.tokens,
            "trained tokens": stats.trained_tokens,
            "longest sample": stats.longest,
            **data.facts,
            **{f"left out, {reason}": left.count for reason, left in stats.dropped.items()},
        },
        "length_histogram": {
            "edges": [histogram[0][0], *(last for _, last, _ in histogram)],
            "counts": [count for _, _, count in histogram],
        },
        "sample_html": html_sample(data.train.samples[0], tokenizer),
        "notes": data.notes,
        "system": data.system,
    }


def _describe_images(data: PreparedData) -> dict[str, Any]:
    return {
        "totals": {
            "training images": data.train.stats.samples,
            "evaluation images": data.eval.stats.samples,
            **data.facts,
        },
        "notes": data.notes,
        "system": None,
    }


def figures(
    before: Measurement,
    after: Measurement,
    outcome: TrainingResult,
    metrics: Sequence[Metric],
) -> dict[str, Any]:
    """Return what the run came to: losses, metrics and what they are, tokens, time."""
    counters = outcome.counters
    return {
        "eval_loss_before": before.loss,
        "eval_loss": after.loss,
        **{f"{name}_before": value for name, value in before.metrics.items()},
        **after.metrics,
        "metrics": [
            metric.as_json()
            for metric in metrics
            if metric.name == "eval_loss" or metric.name in after.metrics
        ],
        "steps": counters.step,
        "tokens": counters.tokens,
        "trained_tokens": counters.trained_tokens,
        "train_seconds": counters.seconds,
        "tokens_per_s": counters.tokens / counters.seconds,
        "ended": outcome.reason,
    }


def sizes(
    loaded: LoadedModel,
    folder: RunFolder,
    adapted: list[AdaptedModule],
    parameters: dict[str, torch.nn.Parameter],
) -> dict[str, Any]:
    """Return how large things are: parameters, memory, files."""
    trained = sum(parameter.numel() for parameter in parameters.values())
    has_adapter = bool(adapter_parameters(loaded.model))
    total = base_parameters(loaded.model) + (trained if has_adapter else 0)
    return {
        "trainable_parameters": trained,
        "total_parameters": total,
        "trainable_share": trained / total,
        "adapted_modules": [vars(module) for module in adapted],
        "weight_bytes": weight_bytes(loaded.model),
        "saved_bytes": _size(folder.adapter if has_adapter else folder.path / "model"),
    }


def base_parameters(model: torch.nn.Module) -> int:
    """Return the base model's parameters: each once, quantised ones as if they were not."""
    quantised = [m for m in model.modules() if isinstance(m, QuantLinear)]
    adapters = {id(p) for p in adapter_parameters(model).values()}
    dense = sum(p.numel() for p in model.parameters() if id(p) not in adapters)
    return dense + sum(m.in_features * m.out_features for m in quantised)


def weight_bytes(model: torch.nn.Module) -> int:
    """Return the bytes that weights, adapters and buffers take in memory, shared ones once."""
    tensors = {t.data_ptr(): t.nbytes for t in [*model.parameters(), *model.buffers()]}
    return sum(tensors.values())


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
