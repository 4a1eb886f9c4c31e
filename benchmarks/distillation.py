"""Does a student learn more from a teacher than from labels alone?

    python benchmarks/distillation.py [--only NAME] [--seeds N] [--minutes M] [--write]

Each cell is one run of `etude tune` on real data (`$ETUDE_DATA`): a pair of teacher and student, an
arm, a seed. Arms of a pair see the same rows in the same order and differ in the settings that are
listed here, no others. Cells run one after the other, each in a process of its own; what is done is
kept in `build/distillation/results.json`, so that the benchmark can be stopped and started again,
and a cell whose settings have changed, or those of its teacher, runs anew. `--write` puts the table
into docs/distillation.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from etude.core.atomic_files import replace_file
from etude.core.machine import this_machine
from task_data import REPOSITORY, prepare

MARKS = ("<!-- measured: begin -->", "<!-- measured: end -->")
PAGE = REPOSITORY / "docs" / "distillation.md"

Settings = dict[str, Any]


@dataclass(frozen=True)
class Arm:
    """One way to train a model."""

    title: str
    recipe: str
    settings: Settings
    teacher: str | None = None
    """The arm whose run, of seed 0, teaches the students of all seeds."""
    stored: bool = False
    """Whether its teacher's scores are stored first, in a process of their own."""


@dataclass(frozen=True)
class Pair:
    """A teacher, its students, and what they are compared by."""

    title: str
    data: str
    metrics: tuple[str, ...]
    """Keys of summary.json: the first is what is compared."""
    arms: dict[str, Arm]
    settings: Settings = field(default_factory=Settings)
    """Of all its arms."""
    seeds: int = 3


LABELS: Settings = {"objective.kind": "auto", "objective.teacher": None}
NOT_TAUGHT = {
    **LABELS,
    "objective.teacher_temperature": 2.0,
    "objective.label_weight": 0.5,
    "quant.kind": "none",
}
TAUGHT: Settings = {"objective.kind": "distill", "quant.kind": "none"}


def classifiers(title: str, data: str, teacher: Arm, rows: int, epochs: int) -> Pair:
    """Return a pair of a whole encoder and one with half of its layers, on half of the rows."""
    schedule = {
        "train.epochs": epochs,
        "train.batch_samples": 32,
        "data.max_train": rows // 2,
        "data.max_eval": 900,
    }
    return Pair(
        title,
        data,
        ("accuracy", "macro_f1"),
        {
            "teacher": teacher,
            "labels": Arm("3 layers, labels alone", "distillation", {**NOT_TAUGHT, **schedule}),
            "half": Arm(
                "3 layers, labels and teacher (T = 2, w = 0.5)",
                *("distillation", {**TAUGHT, **schedule}, "teacher"),
            ),
        },
        {"data.max_train": rows},
    )


ANSWERS = {
    "data.prompt": "question",
    "data.completion": "answer",
    "data.max_train": 64,
    "data.max_eval": 24,
    "train.epochs": 1,
    "train.eval_every": None,
    "eval.generate": 0,
}
OWN_SELF = {
    "objective.kind": "distill",
    "objective.teacher": "self",
    "objective.label_weight": 0.0,
    "objective.teacher_temperature": 1.0,
}
HALF_SELF = {**OWN_SELF, "objective.label_weight": 0.5}

PAIRS: dict[str, Pair] = {
    "sst2": classifiers(
        "sentiment (SST-2)",
        "sst2",
        Arm(
            "6 layers, LoRA: the teacher",
            *("text-classification", {"quant.kind": "none", "train.epochs": 2}),
        ),
        3000,
        3,
    ),
    "banking77": classifiers(
        "intents (BANKING77)",
        "banking77",
        Arm("6 layers, LoRA: the teacher", "banking77", {"train.epochs": 4}),
        3000,
        4,
    ),
    "nf4": Pair(
        "word problems (GSM8K), the base in NF4",
        "gsm8k",
        ("eval_loss", "teacher_kl"),
        {
            "self": Arm("NF4, taught by the unquantised self (T = 1, w = 0)", "chat", OWN_SELF),
            "labels": Arm("NF4, labels alone", "chat", {}),
            "stored": Arm(
                "NF4, labels and the same teacher (T = 1, w = 0.5), 64 likeliest words stored",
                "chat",
                HALF_SELF,
                None,
                stored=True,
            ),
            "half": Arm("the same, the teacher asked in every step", "chat", HALF_SELF),
            "sampled": Arm(
                "the same, 64 drawn words stored",
                "chat",
                {**HALF_SELF, "objective.scores_kind": "sampled"},
                None,
                stored=True,
            ),
        },
        {**ANSWERS, "quant.kind": "nf4", "train.lr": 2e-4},
        seeds=1,
    ),
    "factors": Pair(
        "word problems (GSM8K), factors of few bits",
        "gsm8k",
        ("eval_loss",),
        {
            "teacher": Arm("LoRA, factors in float32: the teacher", "chat", {}),
            **{
                f"{kind}{bits}": Arm(
                    f"{bits}-bit factors, {'labels alone' if kind == 'labels' else 'taught'}",
                    "chat",
                    {
                        "adapter.factors.bits": bits,
                        **({} if kind == "labels" else {"objective.kind": "distill"}),
                    },
                    None if kind == "labels" else "teacher",
                )
                for bits in (3, 2)
                for kind in ("labels", "taught")
            },
        },
        {**ANSWERS, "quant.kind": "none", "train.lr": 5e-4},
        seeds=1,
    ),
}


def settings_of(pair: Pair, arm: Arm, seed: int) -> Settings:
    """Return all that a cell sets."""
    return {**pair.settings, **arm.settings, "train.seed": seed, "train.threads": 1}


def key_of(name: str, arm_name: str, seed: int) -> str:
    """Name a cell, with a hash of all that it depends on: its teacher's settings as well."""
    pair = PAIRS[name]
    arms = [pair.arms[arm_name]]
    if (taught_by := arms[0].teacher) is not None:
        arms.append(pair.arms[taught_by])
    seeds = (seed, 0)
    settings = [
        [one.recipe, settings_of(pair, one, of)] for one, of in zip(arms, seeds, strict=False)
    ]
    content = json.dumps(settings, sort_keys=True)
    digest = hashlib.sha256(content.encode()).hexdigest()[:8]
    return f"{name}/{arm_name}/{seed}/{digest}"


def run(name: str, arm_name: str, seed: int, results: dict[str, Any], work: Path) -> dict[str, Any]:
    """Run a cell and return its figures.

    Raises:
        RuntimeError: the run failed.
    """
    pair = PAIRS[name]
    arm = pair.arms[arm_name]
    data = prepare(pair.data, work / "data")
    settings = settings_of(pair, arm, seed)
    if arm.teacher is not None:
        settings["objective.teacher"] = results[key_of(name, arm.teacher, 0)]["run"]
    command = [arm.recipe, "--data", str(data / "train.jsonl"), "--json"]
    command += ["--runs", str(work / "runs")]
    own = {"data.eval": str(data / "test.jsonl"), **settings}
    scores = None
    if arm.stored:
        folder = work / "scores" / key_of(name, arm_name, seed).replace("/", "-")
        own["objective.teacher_scores"] = str(folder)
    for key, value in own.items():
        command += ["--set", f"{key}={json.dumps(value)}"]
    if arm.stored:
        scores = etude("teacher-scores", *command)
    began = time.perf_counter()
    summary = etude("tune", *command)
    names = [*pair.metrics, *(f"{metric}_before" for metric in pair.metrics)]
    return {
        "metrics": {metric: summary.get(metric) for metric in names},
        "run": str(work / "runs" / summary["name"]),
        "seconds": time.perf_counter() - began,
        "peak_rss": summary["peak_rss"],
        "scores": scores,
        "machine": this_machine().processor,
    }


def etude(*command: str) -> dict[str, Any]:
    """Run a command and return what it prints.

    Raises:
        RuntimeError: it failed.
    """
    done = subprocess.run(
        [sys.executable, "-m", "etude", *command], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1])
    return json.loads(done.stdout)


def cells(only: list[str] | None, seeds: int | None) -> Iterator[tuple[str, str, int]]:
    """Yield every cell, a teacher before its students."""
    for name, pair in PAIRS.items():
        if only and name not in only:
            continue
        for seed in range(min(pair.seeds, seeds or pair.seeds)):
            for arm in pair.arms:
                if seed == 0 or arm not in {one.teacher for one in pair.arms.values()}:
                    yield name, arm, seed


def table(results: dict[str, Any]) -> str:
    """Return the results as Markdown: mean and standard deviation over seeds."""
    lines = [
        "| data | trained | seeds | before | after | time | peak |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, pair in PAIRS.items():
        title = pair.title
        for arm_name, arm in pair.arms.items():
            found = [
                results[key]
                for seed in range(pair.seeds)
                if (key := key_of(name, arm_name, seed)) in results
            ]
            if not found:
                continue
            before, after = (_figures(pair, found, end) for end in ("_before", ""))
            seconds = statistics.mean(one["seconds"] for one in found)
            peak = max(one["peak_rss"] for one in found) / 1e9
            lines.append(
                f"| {title} | {arm.title}{_of_scores(found[0]['scores'])} | {len(found)} "
                f"| {before} | {after} | {seconds:.0f} s | {peak:.2f} GB |"
            )
            title = ""
    return "\n".join(lines)


def _of_scores(scores: dict[str, Any] | None) -> str:
    if scores is None:
        return ""
    each = scores["bytes"] / scores["positions"]
    return f" ({100 * scores['covered']:.1f} % of the mass, {each:.0f} bytes a position)"


def _figures(pair: Pair, found: list[dict[str, Any]], end: str) -> str:
    parts: list[str] = []
    for metric in pair.metrics:
        values = [one["metrics"][f"{metric}{end}"] for one in found]
        if any(value is None for value in values):
            continue
        share = metric in ("accuracy", "macro_f1")
        scale, digits = (100, 1) if share else (1, 3)
        spread = ""
        if len(values) > 1:
            spread = f" ± {scale * statistics.stdev(values):.{digits}f}"
        parts.append(f"{metric} {scale * statistics.mean(values):.{digits}f}{spread}")
    return ", ".join(parts)


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--only", action="append", choices=list(PAIRS), help="these pairs")
    options.add_argument("--seeds", type=int, help="at most so many seeds a pair")
    options.add_argument("--minutes", type=float, default=120, help="start no cell after (120)")
    options.add_argument("--work", type=Path, default=REPOSITORY / "build" / "distillation")
    options.add_argument("--write", action="store_true", help="put the table into the docs page")
    chosen = options.parse_args()
    chosen.work.mkdir(parents=True, exist_ok=True)
    kept = chosen.work / "results.json"
    results: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    began = time.monotonic()
    for name, arm, seed in cells(chosen.only, chosen.seeds):
        key = key_of(name, arm, seed)
        if key in results:
            continue
        if time.monotonic() - began > 60 * chosen.minutes:
            print("the time is over; start it again for the rest")
            break
        taught_by = PAIRS[name].arms[arm].teacher
        if taught_by is not None and key_of(name, taught_by, 0) not in results:
            continue
        try:
            results[key] = run(name, arm, seed, results, chosen.work)
        except RuntimeError as error:
            print(f"{name} {arm} seed {seed} failed: {error}", flush=True)
            continue
        figures = _figures(PAIRS[name], [results[key]], "")
        print(f"{name} {arm} seed {seed}: {figures} ({results[key]['seconds']:.0f} s)", flush=True)
        text = json.dumps(results, indent=1)
        replace_file(kept, lambda file, text=text: file.write_text(text, "utf-8"))
    text = table(results)
    print(f"\n{text}")
    if chosen.write:
        before, _, rest = PAGE.read_text("utf-8").partition(MARKS[0])
        _, _, after = rest.partition(MARKS[1])
        PAGE.write_text(f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{after}", "utf-8")


if __name__ == "__main__":
    main()
