"""What a run writes down for people: data.json, samples.jsonl, summary.json."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from etude.core.machine import peak_rss
from etude.tuning.adapters.multi_adapter import AdaptedModule, adapter_parameters
from etude.tuning.config.recipe import Recipe
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.data.encode import Encoder
from etude.tuning.data.encoded import EncodedSet
from etude.tuning.data.inspect import html_sample
from etude.tuning.data.schema import Sample
from etude.tuning.models.load import LoadedModel
from etude.tuning.quant.linear import QuantLinear
from etude.tuning.report.memory_table import memory_table
from etude.tuning.runs.folder import RunFolder
from etude.tuning.training.trainer import TrainingResult


@dataclass(frozen=True)
class Measurement:
    """What a model does on the held-out samples."""

    loss: float
    """In the unit of the objective: nats per trained token, where answers are learnt."""
    answers: list[str]
    """Greedy answers to the first `eval.generate` held-out samples."""
    rouge: list[float]
    """ROUGE-L of each answer, 0 to 100."""
    metrics: dict[str, float] = field(default_factory=dict[str, float])
    """What else the objective tells: of preferences, rewards, margin and accuracy."""

    @property
    def mean_rouge(self) -> float | None:
        """Mean ROUGE-L, or None where nothing was generated."""
        return sum(self.rouge) / len(self.rouge) if self.rouge else None


@dataclass(frozen=True)
class PreparedData:
    """Encoded data, and what is needed to generate answers for the held-out part."""

    train: EncodedSet
    eval: EncodedSet
    encoder: Encoder
    notes: list[str]

    def questions(self, count: int) -> list[Sample]:
        """Return the first `count` held-out samples that ask for an answer."""
        return [sample for sample in self.eval.sources if sample.messages][:count]


def describe_data(data: PreparedData, tokenizer: Any) -> dict[str, Any]:
    """Return data.json: totals, the length histogram and a coloured sample."""
    stats = data.train.stats
    histogram = stats.histogram
    return {
        "totals": {
            "training samples": stats.samples,
            "evaluation samples": data.eval.stats.samples,
            "tokens": stats.tokens,
            "trained tokens": stats.trained_tokens,
            "longest sample": stats.longest,
            **{f"left out, {reason}": left.count for reason, left in stats.dropped.items()},
        },
        "length_histogram": {
            "edges": [histogram[0][0], *(last for _, last, _ in histogram)],
            "counts": [count for _, _, count in histogram],
        },
        "sample_html": html_sample(data.train.samples[0], tokenizer),
        "notes": data.notes,
    }


def sample_records(
    data: PreparedData, recipe: Recipe, before: Measurement, after: Measurement
) -> list[dict[str, Any]]:
    """Return the lines of samples.jsonl."""
    return [
        {
            "origin": sample.origin,
            "prompt": sample.messages[-2].content if len(sample.messages) > 1 else "",
            "reference": data.encoder.reference(sample),
            "before": before.answers[i],
            "after": after.answers[i],
            "rouge_before": before.rouge[i],
            "rouge_after": after.rouge[i],
        }
        for i, sample in enumerate(data.questions(recipe.eval.generate))
    ]


def figures(before: Measurement, after: Measurement, outcome: TrainingResult) -> dict[str, Any]:
    """Return what the run came to: losses, scores, tokens, time."""
    counters = outcome.counters
    return {
        "eval_loss_before": before.loss,
        "eval_loss": after.loss,
        **{f"{name}_before": value for name, value in before.metrics.items()},
        **after.metrics,
        "rouge_before": before.mean_rouge,
        "rouge": after.mean_rouge,
        "steps": counters.step,
        "tokens": counters.tokens,
        "trained_tokens": counters.trained_tokens,
        "train_seconds": counters.seconds,
        "tokens_per_s": counters.tokens / counters.seconds,
        "ended": outcome.reason,
    }


def sizes(
    loaded: LoadedModel,
    recipe: Recipe,
    folder: RunFolder,
    adapted: list[AdaptedModule],
    parameters: dict[str, torch.nn.Parameter],
) -> dict[str, Any]:
    """Return how large things are: parameters, memory, files."""
    trained = sum(parameter.numel() for parameter in parameters.values())
    total = base_parameters(loaded.model) + (trained if adapted else 0)
    return {
        "trainable_parameters": trained,
        "total_parameters": total,
        "trainable_share": trained / total,
        "adapted_modules": [vars(module) for module in adapted],
        "peak_rss": peak_rss(),
        "weight_bytes": weight_bytes(loaded.model),
        "saved_bytes": _size(folder.adapter if adapted else folder.path / "model"),
        "memory_table": memory_table(
            loaded.model.config,
            recipe.adapter.rank,
            recipe.train.micro_tokens,
            targets=recipe.adapter.target_modules,
            quant=recipe.quant if recipe.quant.kind == "nf4" else QuantSpec(),
            model=recipe.model,
            checkpointing=recipe.train.gradient_checkpointing,
        ),
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
