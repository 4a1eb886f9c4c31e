"""Metric: name, format and direction of an evaluation figure.

Tasks and objectives say which metrics they have; the terminal, the report, `etude runs` and
`etude eval` print what they are given. A run's summary.json lists its metrics, so that a report can
be made from the folder alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, cast

from etude.core import units

Format = Literal["loss", "percent", "points", "correct"]
"""`loss`: three decimals. `percent`: a share of 1. `points`: 0 to 100. `correct`: 0 or 100."""


class MetricRecord(TypedDict, total=False):
    """A metric as summary.json lists it."""

    name: str
    title: str
    format: Format
    higher_is_better: bool
    note: str


@dataclass(frozen=True)
class Metric:
    """One figure of a model on held-out samples."""

    name: str
    """Its key in summary.json; the value before training has `_before` added."""
    title: str
    format: Format
    higher_is_better: bool
    note: str = ""
    """Unit of the value, or what it is a share of."""

    def text(self, value: float | None) -> str:
        """Return a value as people read it."""
        if self.format == "correct":
            return units.UNKNOWN if value is None else ("correct" if value else "wrong")
        write = {"loss": units.loss, "percent": units.percent, "points": units.points}
        return write[self.format](value)

    def error_text(self, error: float | None) -> str:
        """Return a standard error as people read it: `±1.2`; empty where it is not known."""
        if error is None:
            return ""
        if self.format == "percent":
            return f"±{100 * error:.1f}"
        return f"±{error:.1f}" if self.format == "points" else f"±{error:.3f}"

    def change(self, before: float | None, after: float | None) -> str:
        """Return the change, signed: relative for a loss, in points for a share or a score."""
        if self.format == "loss" and not self.higher_is_better:
            return units.change(before, after)
        if before is None or after is None:
            return units.UNKNOWN
        if self.format == "loss":
            return units.signed(after - before, 3)
        scale = 100 if self.format == "percent" else 1
        return units.signed(scale * (after - before), 1)

    def better(self, first: float, second: float) -> bool:
        """Return whether `first` is better than `second`."""
        return first > second if self.higher_is_better else first < second

    def as_json(self) -> MetricRecord:
        """Return plain data."""
        return cast("MetricRecord", dict(vars(self)))

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Metric:
        """Read what `as_json` returned."""
        return cls(**record)


def loss_metric(unit: str) -> Metric:
    """Return the loss on held-out samples, in `unit`."""
    return Metric("eval_loss", "evaluation loss", "loss", higher_is_better=False, note=unit)


PERPLEXITY = Metric("perplexity", "perplexity", "loss", higher_is_better=False)
BITS_PER_BYTE = Metric(
    "bits_per_byte", "bits per byte", "loss", higher_is_better=False, note="of any tokenizer"
)
ROUGE_L = Metric("rouge", "ROUGE-L", "points", higher_is_better=True, note="points")
PREFERENCE_ACCURACY = Metric(
    "accuracy", "preference accuracy", "percent", higher_is_better=True, note="of held-out answers"
)
REWARD_MARGIN = Metric("margin", "reward margin", "loss", higher_is_better=True)
ACCURACY = Metric("accuracy", "accuracy", "percent", higher_is_better=True)
MACRO_F1 = Metric(
    "macro_f1", "macro-F1", "percent", higher_is_better=True, note="mean over the classes"
)
RECALL_10 = Metric(
    "recall_10", "recall@10", "percent", higher_is_better=True, note="of held-out texts"
)
RECALL_1 = Metric(
    "recall_1", "recall@1", "percent", higher_is_better=True, note="of held-out texts"
)
MRR = Metric("mrr", "MRR@10", "percent", higher_is_better=True, note="mean reciprocal rank")
NDCG = Metric("ndcg", "NDCG@10", "percent", higher_is_better=True)
RANK = Metric("rank", "reciprocal rank", "points", higher_is_better=True)
"""Of one sample: 100 / rank of its positive."""
ENTITY_F1 = Metric(
    "entity_f1", "entity F1", "percent", higher_is_better=True, note="exact boundaries and type"
)
ENTITY_PRECISION = Metric(
    "entity_precision", "entity precision", "percent", higher_is_better=True, note="of those found"
)
ENTITY_RECALL = Metric(
    "entity_recall", "entity recall", "percent", higher_is_better=True, note="of the true ones"
)
WORD_ACCURACY = Metric(
    "word_accuracy",
    "word accuracy",
    "percent",
    higher_is_better=True,
    note="most are outside",
)
ENTITIES_CORRECT = Metric("correct", "entities", "correct", higher_is_better=True)
"""Of one sentence: whether its entities, and no others, were found."""
MICRO_F1 = Metric(
    "micro_f1", "micro-F1", "percent", higher_is_better=True, note="over all labels of all samples"
)
LABEL_MACRO_F1 = Metric(
    "macro_f1", "macro-F1", "percent", higher_is_better=True, note="mean over the labels"
)
RMSE = Metric("rmse", "RMSE", "loss", higher_is_better=False, note="in the labels' unit")
MAE = Metric("mae", "mean absolute error", "loss", higher_is_better=False)
PEARSON = Metric("pearson", "Pearson correlation", "loss", higher_is_better=True)
SPEARMAN = Metric(
    "spearman", "Spearman correlation", "loss", higher_is_better=True, note="of ranks"
)
CORRECT = Metric("correct", "class", "correct", higher_is_better=True)
"""Of one sample: whether its class was predicted."""


def sample_score(summary: Mapping[str, Any]) -> Metric:
    """Return what the samples of a run are scored by; version 0.1.0 knew ROUGE-L only."""
    record = summary.get("sample_score")
    return ROUGE_L if record is None else Metric.from_json(record)


def metrics_of(summary: Mapping[str, Any], unit: str) -> list[Metric]:
    """Return the metrics of a run's summary, those that it has values of.

    Summaries of version 0.1.0 do not list theirs: they are known by their keys.

    Args:
        summary: summary.json, perhaps empty.
        unit: of the loss, where the summary does not say it.
    """
    listed = summary.get("metrics")
    if listed is not None:
        known = [Metric.from_json(record) for record in listed]
    else:
        known = [loss_metric(unit), PREFERENCE_ACCURACY, REWARD_MARGIN, ROUGE_L]
    return [metric for metric in known if summary.get(metric.name) is not None]
