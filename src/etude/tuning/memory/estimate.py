"""A run's peak memory by part, from the model's configuration and the recipe alone.

    peak = process + weights + gradients + optimiser + activations + logits + workspace + allocator

That is the peak of training. Answers are generated before and after it, when there are neither
gradients nor optimiser state, but decoded weights and a cache of keys and values: where that takes
more, the difference is part of the workspace, and a note says so. Reading weights, evaluating and
saving take less than either.

`trace` measures activations, logits and workspace on a model without numbers; weights, gradients
and optimiser state are counted. The libraries of the process are measured. What the C library's
allocator and the products hold on to beyond what is in use are constants measured on this engine: a
fixed part, and a share of all that comes and goes. benchmarks/memory_plan.py prints prediction and
measurement.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from etude.core.machine import rss
from etude.tuning.config.recipe import Recipe
from etude.tuning.config.sections.objective import SELF
from etude.tuning.generation.greedy import PREFILL_TOKENS
from etude.tuning.images.encoded import HELD_BYTES
from etude.tuning.memory.trace import Held, Trace, Weights, trace_step, weigh
from etude.tuning.models.heads import CAUSAL_LM, Head
from etude.tuning.optim.registry import OPTIMIZERS
from etude.tuning.placement import weight_dtypes
from etude.tuning.quant import build

TOOLS = 80_000_000
"""Bytes of what a run adds to the imported libraries before any weight: the rest of the imports,
the estimate itself, the model's class and configuration, a tokenizer at work."""

PROCESS = rss() + TOOLS
"""Bytes of a process that is about to read weights.

The libraries are measured, here where they have been imported: which of them transformers imports
(SciPy, Triton) depends on what is installed, by more than a hundred megabytes."""

SCRATCH = 170_000_000
"""Bytes that training adds whatever the model: compiled kernels and scratch of the products, one
for every length of row, and pieces that evaluation and loading leave with the allocator."""

PROGRAMS = 100_000_000
"""Bytes of the programs of products that a step leaves with oneDNN, which keeps `runtimes.PRODUCTS`
of them to the end of the process: they are still there when answers are generated after training.
While training they are part of `SCRATCH`."""

ALLOCATOR = 0.28
"""Of what comes and goes in a step, what stays with the allocator beside it. Rows differ in length,
so that freed pieces rarely fit the next row's."""

FLOAT32 = 4

PARTS = (
    "process",
    "weights",
    "gradients",
    "optimizer",
    "activations",
    "logits",
    "workspace",
    "allocator",
)


@dataclass(frozen=True)
class MemoryEstimate:
    """What one run will hold at its peak."""

    method: str
    """`qlora`, `lora` or `full`."""

    parts: Mapping[str, int]
    """Bytes by part, a key for each of `PARTS`."""

    parameters: int
    """Of the base."""

    trained: int
    """Numbers trained."""

    notes: list[str] = field(default_factory=list[str])

    @property
    def total(self) -> int:
        """Bytes at the peak."""
        return sum(self.parts.values())

    def as_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {**vars(self), "parts": dict(self.parts), "total": self.total}


def estimate_memory(
    config: Any,
    recipe: Recipe,
    dtype: torch.dtype,
    held: Held | None = None,
    head: Head = CAUSAL_LM,
    *,
    process: int = PROCESS,
) -> MemoryEstimate:
    """Predict the peak memory of a run on a processor.

    Args:
        config: the transformers configuration of a model that can have `head`.
        recipe: of the run; its data are not looked at.
        dtype: of the forward pass.
        held: how Linears are held; None: as the recipe's `quant` says.
        head: what the model has on top.
        process: bytes of the process before any weight.

    Raises:
        ModelError: the model cannot be built, or a target matches nothing.
    """
    stored, compute = weight_dtypes(dtype, full=recipe.adapter.kind == "full")
    held = held or held_as(recipe)
    weights = weigh(config, recipe, stored, held, head)
    trace = trace_step(config, recipe, stored, held, compute, head)
    answering = 0
    if not head.is_new:
        answering = answering_bytes(config, recipe, compute or stored, weights.trained)
    return _plan(recipe, weights, trace, process, head, answering, stored)


def held_as(recipe: Recipe) -> Held:
    """Return how a recipe's `quant` holds a Linear."""
    quant = recipe.quant
    if quant.kind in ("none", "native"):
        return lambda path, linear, dtype: None  # noqa: ARG005 - the protocol's

    def held(path: str, linear: torch.nn.Linear, dtype: torch.dtype) -> Any:
        del path
        return build.layer_class(quant)(
            linear.in_features, linear.out_features, quant, dtype, linear.bias
        )

    return held


def answering_bytes(config: Any, recipe: Recipe, compute: torch.dtype, trained: int) -> int:
    """Return the bytes of generating a batch of answers, beside the weights.

    The keys and values of every position in every layer; the adapter's factors, cast and laid out
    for products of few rows; and the hidden states of the prompts that are read at once.

    Args:
        config: the transformers configuration.
        recipe: of the run; prompts are taken to be as long as it lets them be.
        compute: dtype of the forward pass.
        trained: numbers trained.
    """
    text = config.get_text_config()
    answers = min(recipe.eval.generate, recipe.eval.batch_samples)
    heads = text.num_attention_heads
    key_heads = getattr(text, "num_key_value_heads", None) or heads
    width = getattr(text, "head_dim", None) or text.hidden_size // heads
    context = getattr(text, "max_position_embeddings", None) or recipe.data.max_length
    prompt = min(recipe.data.max_length, context)
    positions = answers * (prompt + (recipe.eval.max_new_tokens or recipe.data.max_length // 2))
    cache = 2 * positions * text.num_hidden_layers * key_heads * width
    read = min(answers * prompt, max(prompt, PREFILL_TOKENS))
    inner = getattr(text, "intermediate_size", None) or 4 * text.hidden_size
    hidden = read * (6 * text.hidden_size + 3 * inner)
    factors = trained if recipe.adapter.kind != "full" else 0
    return compute.itemsize * (cache + hidden + factors)


def _plan(
    recipe: Recipe,
    weights: Weights,
    trace: Trace,
    process: int,
    head: Head,
    answering: int,
    stored: torch.dtype,
) -> MemoryEstimate:
    gradients = FLOAT32 * weights.trained
    if recipe.train.gradient_noise:
        gradients *= 2  # that of the micro-batches before
    state = optimizer_bytes(recipe, weights.sizes)
    resident = 0 if recipe.train.paged else state
    if recipe.train.ema_decay is not None:
        resident += FLOAT32 * weights.trained
    in_step = trace.peak
    # AdamW makes two arrays of the size of the largest weight while it steps.
    stepping = 2 * FLOAT32 * weights.largest_trained
    workspace = max(0, in_step - trace.forward_peak, stepping - trace.forward_peak)
    comes_and_goes = max(in_step, stepping)
    parts = {
        "process": process,
        "weights": weights.held + teacher_bytes(recipe, weights.parameters, stored),
        "gradients": gradients,
        "optimizer": resident,
        "activations": trace.kept,
        "logits": max(0, trace.forward_peak - trace.kept),
        "workspace": workspace,
        "allocator": SCRATCH + round(ALLOCATOR * comes_and_goes),
    }
    notes: list[str] = []
    spec = recipe.objective
    if spec.kind == "distill" and spec.teacher_scores is not None:
        notes.append(
            "the teacher is not counted: once its scores are stored (etude teacher-scores), it is "
            "not loaded"
        )
    elif spec.kind == "distill" and spec.teacher != SELF:
        notes.append("the teacher, a second model in memory, is not counted")
    if head.sees_images:
        notes.append(f"prepared images, up to {HELD_BYTES / 1e6:.0f} MB, are not counted")
    if recipe.eval.generate and not head.is_new:
        generating = process + weights.held + SCRATCH + PROGRAMS + weights.dense + answering
        more = generating - sum(parts.values())
        if more > 0:
            parts["workspace"] += more
            notes.append(
                "the peak is while answers are generated, with decoded weights and their cache"
            )
    if weights.experts and recipe.quant.kind != "none":
        notes.append(
            f"{weights.experts:,} numbers of experts are stacked, no Linears: not quantised"
        )
    return MemoryEstimate(recipe.method, parts, weights.parameters, weights.trained, notes)


def teacher_bytes(recipe: Recipe, parameters: int, stored: torch.dtype) -> int:
    """Return the bytes of a teacher that is the student unquantised, a second model in memory.

    Args:
        recipe: of the run.
        parameters: of the base.
        stored: dtype of weights that are not quantised.
    """
    spec = recipe.objective
    asked = spec.kind == "distill" and spec.teacher_scores is None
    own = asked and spec.teacher == SELF and recipe.quant.kind != "none"
    return stored.itemsize * parameters if own else 0


def optimizer_bytes(recipe: Recipe, sizes: tuple[tuple[int, ...], ...]) -> int:
    """Return the bytes of the optimiser's state once it has stepped."""
    state_bytes = OPTIMIZERS[recipe.train.optimizer].state_bytes
    return sum(state_bytes(shape) for shape in sizes)
