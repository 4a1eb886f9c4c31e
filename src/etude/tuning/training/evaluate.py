"""Evaluation: loss on held-out samples, and generated answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch

from etude.core.errors import RecipeError, did_you_mean
from etude.core.machine import release_freed_memory
from etude.core.progress import Progress
from etude.tuning.config.recipe import Recipe
from etude.tuning.data.batch import PACKED_ROWS, Batch, Layout
from etude.tuning.data.encoded import EncodedSample
from etude.tuning.fusion.layout import row_layout
from etude.tuning.generation.greedy import generate
from etude.tuning.metrics.metric import Metric, loss_metric
from etude.tuning.models.foreign_code import foreign_code
from etude.tuning.objectives.base import (
    SFT,
    MeanMetrics,
    Objective,
    in_evaluation,
    side_tokens,
)


@dataclass(frozen=True)
class Evaluation:
    """Result of evaluating an objective on held-out samples."""

    loss: float
    """Mean loss, in the objective's unit."""
    metrics: dict[str, float]
    """The objective's metrics by name: rewards, margin, accuracy, ..."""
    outputs: list[Any] = field(default_factory=list[Any])
    """Model output for each sample, in order; empty if the objective returns none."""
    parts: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    """Σ loss and weight of each micro-batch: their sums' ratio is the loss. For its standard error
    over the samples, of which they are clusters."""


def evaluate(
    model: Any,
    objective: Objective,
    samples: Sequence[EncodedSample],
    micro_tokens: int,
    progress: Progress | None = None,
    *,
    layout: Layout = PACKED_ROWS,
) -> Evaluation:
    """Return the mean loss over all samples, treated as one step.

    Leaves the model in evaluation mode.

    Args:
        model: the model being trained.
        objective: the training objective.
        samples: held-out samples.
        micro_tokens: maximum number of tokens in one forward pass.
        progress: reports each micro-batch.
        layout: packed or padded rows.
    """
    model.eval()
    objective = in_evaluation(objective)
    total, means = 0.0, MeanMetrics()
    outputs: dict[int, Any] = {}
    parts: list[tuple[float, float]] = []
    if progress:
        progress.start("Evaluating", len(samples), "samples")
    lengths = [side_tokens(objective, sample) for sample in samples]
    rows = layout.micro_batches(lengths, micro_tokens)
    batches = [Batch([samples[i] for i in row], layout) for row in rows]
    with torch.no_grad(), row_layout(model, layout), foreign_code(model):
        values = objective.step_values(model, batches)
        for row, batch in zip(rows, batches, strict=True):
            loss = objective.loss(model, batch, values)
            total += float(loss.total)
            parts.append((float(loss.total), float(objective.normalizer(list(batch)))))
            means.add(loss.sums)
            outputs.update(zip(row, loss.outputs, strict=False))
            if progress:
                progress.advance(len(batch))
    if progress:
        progress.finish()
    in_order = [outputs[i] for i in range(len(samples))] if outputs else []
    metrics = {**means.values(), **objective.summarize(samples, in_order)}
    return Evaluation(total / objective.normalizer(samples), metrics, in_order, parts)


def evaluation_loss(
    model: Any,
    samples: Sequence[EncodedSample],
    micro_tokens: int,
    progress: Progress | None = None,
) -> float:
    """Return the mean cross-entropy in nats per trained token over all samples.

    Every trained token weighs the same, whatever the length of its answer. Leaves the model in
    evaluation mode.
    """
    return evaluate(model, SFT(), samples, micro_tokens, progress).loss


def generate_answers(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    end_id: int,
    *,
    max_new_tokens: int,
    batch_samples: int,
    progress: Progress | None = None,
) -> list[str]:
    """Return the greedy answer to each prompt as text; see `generate_texts`."""
    made = generate_texts(
        model,
        tokenizer,
        prompts,
        end_id,
        max_new_tokens=max_new_tokens,
        batch_samples=batch_samples,
        progress=progress,
    )
    return [one.text for one in made]


@dataclass(frozen=True)
class Generation:
    """A generated answer."""

    text: str
    """Without special tokens and surrounding white space."""

    tokens: int
    """Generated tokens, the end token included."""

    ended: bool
    """Whether the model ended it; False where it was truncated."""


def generate_texts(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    end_id: int,
    *,
    max_new_tokens: int,
    batch_samples: int,
    progress: Progress | None = None,
) -> list[Generation]:
    """Return the greedy answer to each prompt, special tokens removed.

    Args:
        model: a transformers causal language model.
        tokenizer: its tokenizer.
        prompts: token ids, each ending where the answer begins.
        end_id: the end token used in training; the model's own end tokens also end an answer.
        max_new_tokens: maximum length of an answer; longer ones are truncated.
        batch_samples: prompts per batch; prompts of similar length are batched together.
        progress: reports each answered prompt.
    """
    model.eval()
    # What evaluation or training freed would lie idle beside decoded weights and their cache.
    release_freed_memory()
    answers = [Generation("", 0, ended=True)] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    ends = end_tokens(model, end_id)
    if progress:
        progress.start("Generating", len(prompts), "answers")
    for start in range(0, len(order), batch_samples):
        batch = order[start : start + batch_samples]
        with foreign_code(model):
            found = generate(
                model, [prompts[i] for i in batch], ends, max_new_tokens=max_new_tokens
            )
        for i, tokens in zip(batch, found, strict=True):
            text = str(tokenizer.decode(tokens, skip_special_tokens=True)).strip()
            answers[i] = Generation(text, len(tokens), ended=bool(tokens) and tokens[-1] in ends)
        if progress:
            progress.advance(len(batch))
    if progress:
        progress.finish()
    return answers


def end_tokens(model: Any, end_id: int) -> list[int]:
    """Return the ids that end an answer: the one used in training, and the model's own.

    They differ where a chat template ends turns with a token other than the tokenizer's.
    """
    own = cast("int | list[int] | None", model.generation_config.eos_token_id)
    if own is None:
        return [end_id]
    return sorted({end_id, *(own if isinstance(own, list) else [own])})


def best_metric(recipe: Recipe, objective: Objective) -> Metric:
    """Return the metric that selects the best checkpoint.

    Raises:
        RecipeError: the objective does not compute this metric.
    """
    name = recipe.eval.best_metric
    if name == "loss":
        return loss_metric(objective.unit)
    known = {metric.name: metric for metric in objective.metrics}
    if name not in known:
        names = ", ".join(["loss", *known])
        raise RecipeError(
            f"eval.best_metric: evaluations during training do not compute {name!r}"
            f"{did_you_mean(name, known)}; they compute: {names}"
        )
    return known[name]
