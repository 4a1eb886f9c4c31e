"""Does a whole run of a recipe take the memory that was predicted for it?

    python benchmarks/memory.py [--only NAME ...] [--steps N] [--threads N] [--json FILE]

Recipes as they ship, through the command line, each in a process of its own: reading, loading,
evaluation and generation before and after training, saving, report. The prediction and the peak
(VmHWM) are those of the run's own summary. Rows are made-up words of all lengths that the recipe
lets in; only the number of steps and of evaluation samples is reduced. Exit code 1 if a prediction
is off by more than 10 %. `memory_plan.py` does the same for training alone, in more shapes.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from etude.tuning.runs.environment import environment

WORDS = [
    "time",
    "year",
    "people",
    "way",
    "day",
    "man",
    "thing",
    "woman",
    "life",
    "child",
    "world",
    "school",
    "state",
    "family",
]

OFF = 0.1
"""Share by which a prediction may be off."""


def texts(longest: int, count: int) -> Iterator[str]:
    """Yield texts of one-token words, from a tenth of `longest` up to nearly all of it."""
    draw = random.Random(0)
    for _ in range(count):
        yield " ".join(draw.choices(WORDS, k=max(4, int(longest * draw.uniform(0.1, 0.85)))))


def chat_rows() -> list[dict[str, Any]]:
    """Return questions and answers that together fill up to 512 tokens."""
    return [{"prompt": f"Go on, {i}.", "completion": text} for i, text in enumerate(texts(440, 96))]


def class_rows() -> list[dict[str, Any]]:
    """Return texts of up to 128 tokens, of two classes."""
    return [{"text": f"{i} {t}", "label": "ab"[i % 2]} for i, t in enumerate(texts(128, 240))]


def pair_rows() -> list[dict[str, Any]]:
    """Return pairs of texts that belong together."""
    pairs = zip(texts(60, 240), texts(120, 240), strict=True)
    return [
        {"text": f"{i} {one}", "positive": f"{i} {other}"} for i, (one, other) in enumerate(pairs)
    ]


CASES: dict[str, tuple[str, list[str], Callable[[], list[dict[str, Any]]] | None]] = {
    "docstrings, QLoRA": ("docstrings", ["--method", "qlora"], None),
    "docstrings, LoRA": ("docstrings", ["--method", "lora"], None),
    "docstrings, full": ("docstrings", ["--method", "full"], None),
    "chat, 512 tokens": ("chat", [], chat_rows),
    "text-classification": ("text-classification", ["--model", "minilm"], class_rows),
    "embedding": ("embedding", ["--model", "minilm"], pair_rows),
}
"""A recipe, options of its command, and its rows; None: the recipe brings its own."""


def run(name: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run one case and return its summary."""
    recipe, more, rows = CASES[name]
    command = [sys.executable, "-m", "etude", "tune", recipe, *more, "--json", "--ignore-memory"]
    command += ["--runs", str(folder / "runs")]
    overrides = [f"train.max_steps={options.steps}"]
    if options.threads is not None:
        overrides.append(f"train.threads={options.threads}")
    if rows is None:
        overrides += ["train.max_minutes=null", f"data.max_eval={options.samples}"]
    else:
        file = folder / "rows.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows()), "utf-8")
        command += ["--data", str(file)]
    for override in overrides:
        command += ["--set", override]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=CASES, metavar="NAME", default=list(CASES))
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--samples", type=int, default=128, help="docstrings to evaluate on")
    parser.add_argument("--threads", type=int, help="default: the recipe's")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    found: list[dict[str, Any]] = []
    print(f"{'':24} {'planned':>9} {'measured':>9} {'ratio':>7}  parts, MB", flush=True)
    for name in options.only:
        with tempfile.TemporaryDirectory() as temporary:
            summary = run(name, options, Path(temporary))
        estimate, peak = summary["memory_estimate"], summary["peak_rss"]
        parts = " ".join(f"{part} {size / 1e6:.0f}" for part, size in estimate["parts"].items())
        sizes = f"{estimate['total'] / 1e6:9.0f} {peak / 1e6:9.0f}"
        print(f"{name:24} {sizes} {estimate['total'] / peak:7.3f}  {parts}", flush=True)
        found.append({"case": name, "estimate": estimate, "measured": peak})
    off = [
        one["case"] for one in found if abs(one["estimate"]["total"] / one["measured"] - 1) > OFF
    ]
    print(f"{len(found) - len(off)} of {len(found)} within {OFF:.0%}")
    if options.json:
        content = {"environment": environment(), "steps": options.steps, "rows": found}
        options.json.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    if off:
        raise SystemExit(f"off by more than {OFF:.0%}: {', '.join(off)}")


if __name__ == "__main__":
    main()
