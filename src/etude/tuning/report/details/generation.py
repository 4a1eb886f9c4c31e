"""Results of generating tasks in the report: generated answers, and the text of documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from etude.core import units as q
from etude.tuning.metrics.metric import BITS_PER_BYTE, PERPLEXITY, Metric, MetricRecord
from etude.tuning.report.blocks import Block, Table


def generation(content: dict[str, Any], summary: Mapping[str, Any]) -> list[Block]:
    """Draw the metrics of generated answers beside their baselines, and how long answers are.

    Args:
        content: `details` of `tasks/answers.py: AnsweredQuestions`.
        summary: summary.json, with each metric before and after.
    """
    return [_metrics(content, summary), _lengths(content)]


def _metrics(content: dict[str, Any], summary: Mapping[str, Any]) -> Table:
    baselines: dict[str, dict[str, float]] = content.get("baselines", {})
    records: list[dict[str, Any]] = content["metrics"]
    metrics = [_metric(record) for record in records]
    rows = [
        (
            metric.title,
            metric.text(summary.get(f"{metric.name}_before")),
            metric.text(summary.get(metric.name)),
            metric.change(summary.get(f"{metric.name}_before"), summary.get(metric.name)),
            *(metric.text(figures.get(metric.name)) for figures in baselines.values()),
        )
        for metric in metrics
    ]
    asked, references = len(content["generated_tokens"]), content["references"]
    validity = list(dict.fromkeys(record["validity"] for record in records))
    several = f" with {q.number(references)} references" if references != asked else ""
    note = f"{q.number(asked)} different prompts{several}. " + " ".join(
        f"{_titles(metrics, records, text)}: {text}." for text in validity
    )
    if "oracle" in baselines:
        note += " The oracle knows the references: it is what the best copied sentences reach."
    return Table(
        "Generated answers", ("metric", "before", "after", "change", *baselines), rows, note=note
    )


def _metric(record: Mapping[str, Any]) -> Metric:
    return Metric.from_json({name: record[name] for name in MetricRecord.__annotations__})


def _titles(metrics: Sequence[Metric], records: Sequence[dict[str, Any]], validity: str) -> str:
    """Return the titles of the metrics of which something is said."""
    return ", ".join(
        metric.title
        for metric, record in zip(metrics, records, strict=True)
        if record["validity"] == validity
    )


def _lengths(content: dict[str, Any]) -> Table:
    generated: list[int] = content["generated_tokens"]
    references: list[int] = content["reference_tokens"]
    truncated, limit = content["truncated"], content["limit"]
    return Table(
        "Length of answers, in tokens",
        ("", "shortest", "median", "mean", "longest"),
        [("generated", *_spread(generated)), ("reference", *_spread(references))],
        note=f"{q.number(truncated)} of {q.number(len(generated))} generated answers "
        f"({q.percent(truncated / len(generated))}) were cut at the limit of {q.number(limit)} "
        "tokens (eval.max_new_tokens).",
    )


def _spread(lengths: Sequence[int]) -> tuple[str, str, str, str]:
    ordered = sorted(lengths)
    middle = ordered[len(ordered) // 2]
    mean = sum(ordered) / len(ordered)
    return q.number(ordered[0]), q.number(middle), f"{mean:.1f}", q.number(ordered[-1])


def documents(content: dict[str, Any], summary: Mapping[str, Any]) -> list[Block]:
    """Draw what the model gained inside the domain beside what it lost outside.

    Args:
        content: sizes of the text `inside` and, if measured, `outside`; `stride` and `window`.
        summary: summary.json, with the figures of both.
    """
    rows: list[tuple[str, ...]] = []
    for place, prefix in (("inside", ""), ("outside", "general_")):
        size = content.get(place)
        if size is None:
            continue
        cells = [f"{place} the domain", q.number(size["documents"]), q.number(size["tokens"])]
        for metric in (PERPLEXITY, BITS_PER_BYTE):
            name = prefix + metric.name
            before, after = summary.get(f"{name}_before"), summary.get(name)
            cells += [metric.text(before), metric.text(after), metric.change(before, after)]
        rows.append(tuple(cells))
    stride = content["stride"]
    how = (
        f"windows of {content['window']:,} tokens, each scoring its last {stride:,}"
        if stride
        else f"rows of {content['window']:,} tokens that share one token (eval.stride: null)"
    )
    columns = ("", "documents", "tokens", "perplexity before", "after", "change")
    return [
        Table(
            "Held-out text",
            (*columns, "bits per byte before", "after", "change"),
            rows,
            note=f"Every token is scored once, in {how}. Perplexity is per token of this model's "
            "tokenizer; bits per byte can be compared between tokenizers. Both count the end of "
            "each document."
            + ("" if "outside" in content else " Text outside the domain was not measured."),
        )
    ]


def beside(details: Mapping[str, Any]) -> list[str]:
    """Return lines for the terminal: baselines, and answers that were cut at the limit."""
    made: dict[str, Any] | None = details.get("generation")
    if made is None:
        return []
    metrics = [_metric(record) for record in made["metrics"]]
    lines = [
        f"{name:>12}  "
        + ", ".join(f"{m.title} {m.text(figures[m.name])}" for m in metrics if m.name in figures)
        for name, figures in made.get("baselines", {}).items()
    ]
    asked, truncated = len(made["generated_tokens"]), made["truncated"]
    if truncated:
        lines.append(
            f"{'cut':>12}  {truncated:,} of {asked:,} answers at {made['limit']:,} tokens "
            "(eval.max_new_tokens)"
        )
    return lines
