"""Types of a run's JSON files: summary.json, data.json, samples.jsonl.

`tune` writes them; the report, `etude runs` and `etude eval` read them. Every key may be missing,
because stopped runs have reports too. Losses are in the objective's unit, sizes in bytes, times in
seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict, cast

from etude.tuning.metrics.metric import MetricRecord, metrics_of


class MemoryEstimateRecord(TypedDict):
    """A memory estimate as plain data; see `etude.tuning.memory.estimate`."""

    method: str
    """`qlora`, `lora` or `full`."""

    parts: dict[str, int]
    total: int


class RunResult(TypedDict, total=False):
    """Results of one method: the run's own figures, or a row of `--compare`.

    In addition there is a key for each metric in `metrics`, and one with suffix `_before`.
    """

    method: str
    """`qlora`, `lora` or `full`."""

    objective: str
    """`sft` (`completion` in runs of 0.1.0), `dpo`, `orpo`, `kto` or `classification`."""

    loss_unit: str
    """Unit of the objective's loss."""

    metrics: list[MetricRecord]
    """Metrics on held-out samples, the loss first."""

    standard_errors: dict[str, float]
    """Of metrics over the evaluation samples, by name; missing where it is not known."""

    eval_loss_before: float
    eval_loss: float
    seconds: float
    """Training time without evaluation."""

    peak_rss: int
    peak_gpu_memory: int | None
    """Peak GPU memory of tensors; None on a CPU."""
    weight_bytes: int
    """The base model's weights in memory."""

    saved_bytes: int
    """Size of the saved adapter or model on disk."""

    tokens_per_s: float
    """Tokens processed in training, trained and context."""


def result_of(summary: Mapping[str, Any]) -> RunResult:
    """Return the figures of a summary that are compared between runs."""
    keys = set(RunResult.__annotations__)
    for metric in metrics_of(summary, ""):
        keys |= {metric.name, f"{metric.name}_before"}
    return cast("RunResult", {key: summary[key] for key in summary if key in keys})


class Module(TypedDict):
    """One adapted module."""

    name: str
    """Its path in the model: `model.layers.0.self_attn.q_proj`."""

    in_features: int
    out_features: int
    rank: int
    parameters: int
    """Trainable parameters of its adapter."""


class Summary(RunResult, total=False):
    """summary.json."""

    name: str
    task: str
    """The recipe's task."""

    sample_score: MetricRecord
    """The score in samples.jsonl."""

    model: str
    steps: int
    tokens: int
    trained_tokens: int
    trainable_parameters: int
    total_parameters: int
    """Parameters of base model and adapter."""

    trainable_share: float
    train_seconds: float
    total_seconds: float
    """Including loading, evaluation and saving."""

    adapted_modules: list[Module]
    memory_estimate: MemoryEstimateRecord
    """Made before the run; missing where the model's memory cannot be estimated. Runs of version
    0.1.0 call it `memory_plan`; read it by `memory_estimate`."""

    other_memory_estimates: list[MemoryEstimateRecord]
    """What the same recipe would take by other methods; read them by `memory_by_method`. Runs of
    version 0.1.0 have a `memory_table` instead."""

    optimization: dict[str, str]
    """What acted on the weights and their gradients, by its name: schedule, decay, noise, average;
    missing in runs of version 0.1.0."""

    gradient_noise_scale: dict[str, Any]
    """`samples`, `error`, `steps`, `batch` and `advice`, with `train.gradient_noise`."""

    compare: list[RunResult]
    ended: str
    """Why training ended."""

    verdict: str
    """That the run ended worse than it began, and what to do; missing where it did not."""

    eval_loss_ended: float
    """Loss when training ended, where the weights before it were restored and saved."""


def memory_estimate(summary: Mapping[str, Any]) -> MemoryEstimateRecord | None:
    """Return the estimate that was made before the run; None where there was none."""
    return summary.get("memory_estimate") or summary.get("memory_plan")


def memory_by_method(summary: Mapping[str, Any]) -> list[MemoryEstimateRecord]:
    """Return an estimate for each method, full fine-tuning first; empty where there are none.

    Those of version 0.1.0 have fewer parts: neither the process nor what a step allocates for a
    moment.
    """
    own: MemoryEstimateRecord | None = summary.get("memory_estimate")
    if own is not None:
        found = [own, *summary.get("other_memory_estimates", [])]
    else:
        rows: list[dict[str, Any]] = summary.get("memory_table", [])
        found = [
            MemoryEstimateRecord(
                method=row["method"],
                parts={key: row[key] for key in row if key not in ("method", "total")},
                total=row["total"],
            )
            for row in rows
        ]
    return sorted(found, key=lambda record: _METHODS.index(record["method"]))


_METHODS = ("full", "lora", "qlora", "head")


class LengthHistogram(TypedDict):
    """Samples by length: `counts[i]` of them have `edges[i]` < tokens ≤ `edges[i + 1]`.

    The first edge belongs to the first range.
    """

    edges: list[int]
    counts: list[int]


class DataFacts(TypedDict, total=False):
    """data.json."""

    length_histogram: LengthHistogram
    totals: dict[str, int | float | str]
    """Label and figure, in display order."""

    notes: list[str]
    """Notes about dropped and truncated samples."""

    sample_html: str
    """One sample, token by token: escaped text in `<span class="trained|context|dropped">`."""


class SampleRecord(TypedDict, total=False):
    """A line of samples.jsonl."""

    prompt: str
    reference: str
    before: str
    after: str
    score_before: float
    score_after: float
    """0 to 100; runs of version 0.1.0 have `rouge_before` and `rouge_after`."""
    origin: str
