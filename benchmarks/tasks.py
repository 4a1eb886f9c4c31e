"""What do the text tasks come to on public data, and what do their methods cost?

    python benchmarks/tasks.py [--only NAME] [--methods lora,qlora] [--seeds N] [--write]

Each cell is one run of `etude tune` on real data (`$ETUDE_DATA`, see `benchmarks/task_data.py`): a
task, a method, a seed. Cells run one after the other, each in a process of its own; what is done is
kept in `build/tasks/results.json`, so that the benchmark can be stopped and started again, and a
cell whose settings have changed runs anew. `--write` puts the table into docs/tasks.md.

Classifiers stand beside the majority class and TF-IDF with logistic regression on the same rows;
`head` trains the new head alone on the frozen model. Where a task's test set is larger than what a
cell may take, a part is drawn by the seed, and the table says so.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

from etude.core.atomic_files import replace_file
from etude.core.machine import this_machine
from task_data import REPOSITORY, prepare

MARKS = ("<!-- measured: begin -->", "<!-- measured: end -->")
ALL_METHODS = ("head", "lora", "qlora", "full")


@dataclass(frozen=True)
class Task:
    """A row of the table: data, recipe, and what it is measured by."""

    name: str
    title: str
    recipe: str
    data: str
    held_out: str
    """Side of the data set that is evaluated."""
    metrics: tuple[str, ...]
    """Keys of summary.json, the first one first."""
    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    methods: tuple[str, ...] = ALL_METHODS
    seeds: int = 3
    own: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    """Further settings of a method."""
    elsewhere: str | None = None
    """Another data set, on which the tuned model is measured beside its base."""


# Full fine-tuning of a 22M encoder wants about a tenth of an adapter's rate (`--method full` sets
# it); a head alone, ten times as much.
HEAD = {"head": {"train.lr": 5e-3}}

TASKS = (
    Task(
        *("sst2", "sentiment (SST-2)", "text-classification", "sst2", "test"),
        ("accuracy", "macro_f1"),
        {"train.epochs": 2, "train.lr": 5e-4, "train.micro_tokens": 2048},
        own=HEAD,
    ),
    Task(
        *("banking77", "intents of a bank (BANKING77)", "banking77", "banking77", "test"),
        ("accuracy", "macro_f1"),
        own={"head": {"train.lr": 2e-2, "train.head_lr_ratio": 1}},
    ),
    Task(
        *("unfair_tos", "unfair terms of service", "text-classification", "unfair_tos", "test"),
        ("macro_f1", "accuracy"),
        # At 1e-3 the loss leaps up in the middle, and the model answers with the commonest class.
        {"train.epochs": 4, "train.lr": 3e-4},
        methods=("head", "lora", "qlora", "full", "weighted", "balanced"),
        own={
            **HEAD,
            "weighted": {"objective.class_weights": "balanced"},
            "balanced": {"train.sampling": "balanced"},
        },
    ),
    Task(
        *("overruling", "overruling sentences", "text-classification", "overruling", "test"),
        ("macro_f1", "accuracy"),
        {"train.epochs": 4, "train.lr": 1e-3},
        own=HEAD,
    ),
    Task(
        *("bc5cdr", "chemicals and diseases (BC5CDR)", "token-classification", "bc5cdr", "test"),
        ("entity_f1", "entity_precision", "entity_recall"),
        {"train.epochs": 5, "train.lr": 2e-3},
        own={"head": {"train.lr": 1e-2}},
    ),
    Task(
        *("wnut17", "rare entities (WNUT-17)", "token-classification", "wnut17", "test"),
        ("entity_f1", "entity_precision", "entity_recall"),
        {"train.epochs": 5, "train.lr": 2e-3},
        own={"head": {"train.lr": 1e-2}},
    ),
    Task(
        *("medquad_search", "search (MedQuAD questions)", "embedding", "medquad", "test"),
        ("recall_10", "mrr", "ndcg"),
        {"data.text": "question", "data.positive": "answer", "train.epochs": 2},
        methods=("lora", "full"),
        elsewhere="banking77_pairs",
    ),
    Task(
        *("banking77_search", "search (BANKING77 by class)", "embedding", "banking77", "test"),
        ("recall_10", "mrr", "ndcg"),
        {"data.max_length": 64, "train.epochs": 1},
        methods=("lora",),
    ),
    Task(
        *("medquad_reranking", "reranking (MedQuAD answers)", "reranking", "medquad", "test"),
        ("ndcg", "mrr", "recall_10"),
        {"data.text": "question", "data.positive": "answer"},
        methods=("lora",),
        seeds=1,
    ),
    Task(
        *("medquad_domain", "domain (MedQuAD)", "language-modeling", "medquad", "test"),
        ("perplexity", "general_perplexity"),
        {
            "data.text": "{question}\n{answer}",
            "data.max_train": 1200,
            "data.max_eval": 200,
            "eval.generate": 0,
        },
        methods=("lora", "qlora", "replay"),
        seeds=1,
        own={"replay": {"data.replay.share": 0.1}},
    ),
    Task(
        *("gsm8k", "word problems (GSM8K)", "chat", "gsm8k", "test"),
        ("eval_loss", "exact_match", "rouge"),
        {
            "data.prompt": "question",
            "data.completion": "answer",
            "data.max_train": 900,
            "data.max_eval": 256,
            "train.epochs": 1,
            "eval.generate": 64,
            "eval.metrics": ["exact_match", "rougeL"],
            "eval.answer_pattern": "####\\s*(.+)",
        },
        methods=("lora", "qlora"),
        seeds=1,
    ),
    Task(
        *("scitldr", "summaries (SciTLDR)", "summaries", "scitldr", "test"),
        ("rouge1", "rouge2", "rouge"),
        {
            "data.prompt": "{abstract}",
            "data.completion": "summary",
            "eval.source": "abstract",
            "data.max_train": 1000,
            "data.max_eval": 200,
            "eval.generate": 200,
        },
        methods=("lora", "qlora"),
        seeds=1,
    ),
    Task(
        *("e2e", "text from data (E2E, trained on its dev set)", "data-to-text", "e2e_nlg", "test"),
        ("bleu", "rouge", "chrf", "slots"),
        {
            "data.prompt": "{meaning}",
            "data.completion": "text",
            "eval.slots": "meaning",
            "eval.generate": 200,
            "data.max_train": 2400,
            "train.epochs": 1,
        },
        methods=("lora", "full"),
        seeds=1,
    ),
    Task(
        *("gsm8k_pairs", "preferences (GSM8K, right or wrong)", "preferences", "gsm8k_pairs"),
        *("test", ("margin", "accuracy", "eval_loss")),
        {"data.max_train": 400, "data.max_eval": 100, "eval.generate": 0},
        methods=("lora", "qlora"),
        seeds=1,
    ),
)


@dataclass(frozen=True)
class Cell:
    """One run."""

    task: Task
    method: str
    seed: int

    def command(self, data: Path, general: Path, runs: Path) -> list[str]:
        """Return the command line that runs it."""
        method = self.method if self.method in ("lora", "qlora", "full") else None
        settings = {
            "train.seed": self.seed,
            **self.task.settings,
            **self.task.own.get(self.method, {}),
        }
        if self.method not in ("lora", "qlora", "full"):
            settings["quant.kind"] = "none"
        if self.method == "head":
            settings["adapter.kind"] = "head"
        if self.task.recipe == "language-modeling":
            settings["eval.general"] = str(general)
        if self.method == "replay":
            settings["data.replay.file"] = str(general.with_name("train.jsonl"))
        command = ["tune", self.task.recipe, "--data", str(data / "train.jsonl")]
        command += ["--eval-data", str(data / f"{self.task.held_out}.jsonl")]
        command += ["--runs", str(runs), "--json", *(["--method", method] if method else [])]
        for key, value in settings.items():
            command += ["--set", f"{key}={json.dumps(value)}"]
        return command

    @property
    def key(self) -> str:
        """Names the cell, with a hash of all that it depends on."""
        content = json.dumps([asdict(self.task), self.method], sort_keys=True)
        digest = hashlib.sha256(content.encode()).hexdigest()[:8]
        return f"{self.task.name}/{self.method}/{self.seed}/{digest}"


def run(cell: Cell, work: Path, limit: float) -> dict[str, Any]:
    """Run a cell and return its figures.

    Raises:
        RuntimeError: the run failed, or took too long.
    """
    data = prepare(cell.task.data, work / "data")
    general = prepare("wikitext2", work / "data") / "test.jsonl"
    command = [sys.executable, "-m", "etude", *cell.command(data, general, work / "runs")]
    began, had = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1:] or [f"exit {done.returncode}"])
    summary: dict[str, Any] = json.loads(done.stdout)
    folder = work / "runs" / summary["name"]
    details = json.loads((folder / "details.json").read_text("utf-8"))
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    elsewhere = None
    if cell.task.elsewhere:
        other = prepare(cell.task.elsewhere, work / "data") / "test.jsonl"
        evaluation = [sys.executable, "-m", "etude", "eval", str(folder), "--data", str(other)]
        measured = subprocess.run(
            [*evaluation, "--base", "--json"],
            capture_output=True,
            text=True,
            timeout=limit,
            check=False,
        )
        if measured.returncode:
            raise RuntimeError(measured.stderr.strip().splitlines()[-1:])
        elsewhere = json.loads(measured.stdout)
    names = [*cell.task.metrics, *(f"{name}_before" for name in cell.task.metrics)]
    keys = ("trainable_share", "train_seconds", "peak_rss", "steps", "tokens_per_s", "eval_loss")
    return {
        "metrics": {name: summary.get(name) for name in names},
        **{key: summary[key] for key in keys},
        "wall_seconds": time.perf_counter() - began,
        "processor_seconds": used.ru_utime + used.ru_stime - had.ru_utime - had.ru_stime,
        "elsewhere": elsewhere,
        "baselines": details.get("baselines", {}).get("rows", [])[:-1]
        or details.get("generation", {}).get("baselines", {}),
        "command": "etude " + " ".join(command[3:]),
        "machine": this_machine().processor,
    }


def table(tasks: list[Task], results: dict[str, dict[str, Any]]) -> str:
    """Return the results as Markdown: mean and standard deviation over seeds."""
    lines = [
        "| task | method | seeds | result | trained | processor time | peak |",
        "|---|---|---|---|---|---|---|",
    ]
    for task in tasks:
        title = task.title
        for method in task.methods:
            found = [
                results[cell.key]
                for seed in range(task.seeds)
                if (cell := Cell(task, method, seed)).key in results
            ]
            if not found:
                continue
            if title:
                lines += _baseline_lines(title, found[0], task)
            lines.append(
                f"| {title if not found[0]['baselines'] else ''} | {method} | {len(found)} | "
                f"{_figures(task, found)} | {100 * found[0]['trainable_share']:.2f} % | "
                f"{statistics.mean(one['processor_seconds'] for one in found) / 60:.1f} min | "
                f"{max(one['peak_rss'] for one in found) / 1e9:.2f} GB |"
            )
            title = ""
    return "\n".join(lines)


def _figures(task: Task, found: list[dict[str, Any]]) -> str:
    parts: list[str] = []
    for name in task.metrics:
        values = [one["metrics"][name] for one in found if one["metrics"].get(name) is not None]
        if not values:
            continue
        scale = 100 if name in _SHARES else 1
        mean = scale * statistics.mean(values)
        spread = f" ± {scale * statistics.stdev(values):.1f}" if len(values) > 1 else ""
        before = found[0]["metrics"].get(f"{name}_before")
        start = "" if before is None else f" (before {scale * before:.1f})"
        digits = 3 if name == "eval_loss" else 1
        parts.append(f"{name} {mean:.{digits}f}{spread}{start}")
    return ", ".join(parts)


_SHARES = {
    *("accuracy", "macro_f1", "entity_f1", "entity_precision", "entity_recall"),
    *("recall_10", "mrr", "ndcg", "exact_match", "slots"),
}


def _baseline_lines(title: str, one: dict[str, Any], task: Task) -> list[str]:
    rows: list[tuple[str, dict[str, float]]] = []
    if isinstance(one["baselines"], list):
        listed = cast("list[dict[str, Any]]", one["baselines"])
        rows = [(row["name"], row["metrics"]) for row in listed]
    else:
        rows = list(one["baselines"].items())
    lines: list[str] = []
    for name, metrics in rows:
        shown = ", ".join(
            f"{key} {(100 if key in _SHARES else 1) * metrics[key]:.1f}"
            for key in task.metrics
            if key in metrics
        )
        lines.append(f"| {title if not lines else ''} | {name} | | {shown} | | | |")
    return lines


def write_table(text: str) -> None:
    """Put the table into docs/tasks.md, between its marks."""
    page = REPOSITORY / "docs" / "tasks.md"
    whole = page.read_text("utf-8")
    before, _, rest = whole.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    page.write_text(f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{after}", "utf-8")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--only", action="append", choices=[task.name for task in TASKS], help="these tasks")
    add("--methods", help="these methods, separated by commas")
    add("--seeds", type=int, help="at most so many seeds a task")
    add("--hours", type=float, default=3.0, help="start no cell after so many hours (3)")
    add("--limit", type=float, default=1800.0, help="seconds that one cell may take (1800)")
    add("--work", type=Path, default=REPOSITORY / "build" / "tasks", help="data and runs go here")
    add("--write", action="store_true", help="put the table into docs/tasks.md")
    return parser.parse_args()


def main() -> None:
    options = parse()
    tasks = [task for task in TASKS if not options.only or task.name in options.only]
    chosen = set(options.methods.split(",")) if options.methods else None
    options.work.mkdir(parents=True, exist_ok=True)
    kept = options.work / "results.json"
    results: dict[str, dict[str, Any]] = json.loads(kept.read_text()) if kept.exists() else {}
    cells = [
        Cell(task, method, seed)
        for seed in range(3)
        for task in tasks
        for method in task.methods
        if seed < min(task.seeds, options.seeds or task.seeds)
        and (chosen is None or method in chosen)
    ]
    began = time.monotonic()
    for number, cell in enumerate(cells, start=1):
        if cell.key in results:
            continue
        if time.monotonic() - began > 3600 * options.hours:
            print(f"{options.hours:g} hours are over; start it again for the rest")
            break
        name = f"[{number}/{len(cells)}] {cell.task.name} {cell.method} seed {cell.seed}"
        print(f"{name} (load {os.getloadavg()[0]:.1f})", flush=True)
        try:
            results[cell.key] = run(cell, options.work, options.limit)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            print(f"  failed: {error}", flush=True)
            continue
        print(f"  {_figures(cell.task, [results[cell.key]])}", flush=True)
        text = json.dumps(results, indent=1)
        replace_file(kept, lambda file, text=text: file.write_text(text, "utf-8"))
    text = table(tasks, results)
    print(f"\n{text}")
    if options.write:
        write_table(text)


if __name__ == "__main__":
    main()
