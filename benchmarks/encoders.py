"""How do Etude and transformers' Trainer + PEFT compare where a small encoder learns classes?

    python benchmarks/encoders.py [--quick] [--only sst2] [--json encoders.json]

MiniLM (22 million weights) by LoRA, rank 16 on all linear layers, on SST-2 and BANKING77: the same
rows, the same processor, the same learning rates, each run a process of its own. The peer is tried
with rows in random order and grouped by length, in float32, bfloat16 weights and bfloat16 autocast;
the fastest of six short runs is measured. Printed are samples a second (steps alone, without the
first three) by the clock and by the processor's time, peak memory above imported libraries, and
accuracy on all held-out rows. On a machine that does something else the processor's time of one
thread (`--threads 1`) is the fairer of the two.

The data are below `$ETUDE_DATA`, or in `shared/data` beside the repository.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from etude import Recipe
from etude.core.machine import this_machine
from etude.tuning.models.pull import pull
from etude.tuning.optim.schedules import learning_rate
from etude.tuning.runs.environment import environment

REPOSITORY = Path(__file__).resolve().parents[1]
SETS = ("sst2", "banking77")
RANK, ALPHA, BATCH, RATE = 16, 32, 32, 1e-3
WARM = 3
"""Steps that are not timed: memory is allocated and matrix kernels are compiled."""
VARIANTS = [
    (dtype, group) for dtype in ("float32", "bfloat16", "autocast") for group in (False, True)
]
NAMES = {f"{dtype}-{'grouped' if group else 'random'}": (dtype, group) for dtype, group in VARIANTS}
BLOCK = 50
"""Batches that grouping by length sorts at a time, longest first: fewer are no measure of it."""
EPOCHS = {"sst2": 1.0, "banking77": 4.0}


def data_folder() -> Path:
    """Return the folder of data sets."""
    chosen = os.environ.get("ETUDE_DATA")
    return Path(chosen) if chosen else REPOSITORY.parent / "shared" / "data"


def read(name: str, part: str) -> list[dict[str, str]]:
    """Return texts and labels of a data set: `train`, or `dev`, which neither side trains on."""
    if name == "sst2":
        file = data_folder() / "sentiment" / "sst2" / f"stsa.binary.{part}"
        if not file.is_file():
            sys.exit(f"no SST-2 at {file}: set ETUDE_DATA to the folder that holds sentiment/sst2")
        pairs = [line.split(" ", 1) for line in file.read_text("utf-8").splitlines() if line]
        return [{"text": text, "label": label} for label, text in pairs]
    file = data_folder() / "topic" / "banking77" / ("train.csv" if part == "train" else "test.csv")
    if not file.is_file():
        sys.exit(f"no BANKING77 at {file}: set ETUDE_DATA to the folder that holds topic/banking77")
    with file.open(encoding="utf-8", newline="") as lines:
        return [{"text": r["text"], "label": r["category"]} for r in csv.DictReader(lines)]


def prepare(name: str, folder: Path, dev_rows: int | None) -> tuple[int, list[str]]:
    """Write the rows of a data set; return how many train, and the labels."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = {"train": read(name, "train"), "dev": read(name, "dev")[:dev_rows]}
    rows["few"] = rows["dev"][:8]
    for part, listed in rows.items():
        text = "".join(json.dumps(row) + "\n" for row in listed)
        (folder / f"{part}.jsonl").write_text(text, "utf-8")
    return len(rows["train"]), sorted({row["label"] for row in rows["train"]})


class Bench:
    """One data set: its rows, and runs of both sides."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        self.name, self.options = name, options
        self.folder = Path(options.work) / name
        self.model = str(pull("minilm"))
        self.rows, self.labels = prepare(name, self.folder, options.dev_rows)
        whole = round(EPOCHS[name] * self.rows / BATCH)
        self.steps = min(whole, options.steps or whole)

    def recipe(self, steps: int, seed: int) -> Recipe:
        """Return Etude's side as the recipe that a person would write."""
        return Recipe.parse(
            {
                "name": "etude",
                "task": "text-classification",
                "model": {"id": self.model},
                "adapter": {"rank": RANK, "alpha": ALPHA, "target_modules": "all-linear"},
                "quant": {"kind": "none"},
                "data": {
                    "train": str(self.folder / "train.jsonl"),
                    "eval": str(self.folder / "dev.jsonl"),
                    "max_length": 128,
                    "too_long": "cut_prompt",
                },
                "train": {
                    "epochs": 1000.0,
                    "max_steps": steps,
                    "batch_samples": BATCH,
                    "micro_tokens": 2048,
                    "lr": RATE,
                    "save_every": 100_000,
                    "threads": self.options.threads,
                    "seed": seed,
                },
            }
        )

    def run(
        self,
        side: str,
        steps: int,
        seed: int,
        dtype: str = "",
        group: bool = False,
        dev: str = "dev",
    ) -> dict[str, Any]:
        """Train once; return the record with samples a second and memory above imports."""
        place = self.folder / "-".join([side, dtype or "auto", str(group), str(steps), str(seed)])
        place.mkdir(parents=True, exist_ok=True)
        recipe = self.recipe(steps, seed)
        settings = {
            "side": side,
            "launched": time.time(),
            "record": str(place / "record.json"),
            "output": str(place),
            "model": self.model,
            "train": str(self.folder / "train.jsonl"),
            "dev": str(self.folder / f"{dev}.jsonl"),
            "labels": self.labels,
            "rank": RANK,
            "alpha": ALPHA,
            "batch": BATCH,
            "rates": [learning_rate(recipe.train, step, steps) for step in range(steps)],
            "dtype": dtype,
            "group": group,
            "seed": seed,
            "threads": self.options.threads,
            "recipe": recipe.model_dump(mode="json"),
        }
        file = place / "settings.json"
        file.write_text(json.dumps(settings), "utf-8")
        worker = Path(__file__).parent / "peer" / "train_encoder.py"
        done = subprocess.run(
            [sys.executable, str(worker), str(file)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.exit(f"{side} failed:\n{done.stderr[-2000:]}")
        record: dict[str, Any] = json.loads((place / "record.json").read_text("utf-8"))
        timed = record["step_seconds"][WARM:]
        record["samples_per_second"] = BATCH * len(timed) / sum(timed)
        spent = record["step_processor_seconds"][WARM:]
        record["samples_per_processor_second"] = BATCH * len(spent) / sum(spent)
        record["memory"] = record["peak_rss"] - record["imports"]
        return {**record, "side": side, "dtype": dtype, "group": group, "seed": seed}

    def measure(self) -> dict[str, Any]:
        """Run both sides and print them."""
        ways = self.options.peer
        tries = (
            []
            if len(ways) == 1
            else [
                self.run("peer", self.options.try_steps, 0, dtype, group, dev="few")
                for dtype, group in ways
            ]
        )
        for one in tries:
            order = "by length" if one["group"] else "random"
            print(
                f"  peer, {one['dtype']}, {order}: {one['samples_per_second']:.1f} samples/s, "
                f"{one['samples_per_processor_second']:.1f} a processor's second",
                flush=True,
            )
        by_speed = {
            (one["dtype"], one["group"]): one["samples_per_processor_second"] for one in tries
        }
        dtype, group = max(ways, key=lambda way: by_speed.get(way, 0.0))
        of_processor = "samples_per_processor_second"
        pairs: list[tuple[dict[str, Any], dict[str, Any]]] = []
        for seed in range(self.options.repeats):
            ours = self.run("etude", self.steps, seed)
            theirs = self.run("peer", self.steps, seed, dtype, group)
            pairs.append((ours, theirs))
            for one in (ours, theirs):
                print(
                    f"  {one['side']:<6} {one['dtype']:<9} seed {seed}, {self.steps} steps: "
                    f"{one['samples_per_second']:7.1f} samples/s, "
                    f"{one['samples_per_processor_second']:7.1f} a processor's second, "
                    f"{one['memory'] / 2**20:6.0f} MiB "
                    f"above imports, accuracy {one['accuracy']:.4f}, "
                    f"{one['trainable_parameters']:,} trained  {one['layers']}",
                    flush=True,
                )
            print(
                f"  ratios: speed {ours['samples_per_second'] / theirs['samples_per_second']:.2f}, "
                "by the processor's time "
                f"{ours[of_processor] / theirs[of_processor]:.2f}, "
                f"memory {ours['memory'] / theirs['memory']:.2f}, "
                f"accuracy {100 * (ours['accuracy'] - theirs['accuracy']):+.2f} points",
                flush=True,
            )
        return {"tries": tries, "pairs": pairs}


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--quick", action="store_true", help=f"{WARM + BLOCK} steps a run, 64 rows held out")
    add("--only", choices=SETS, help="one data set instead of both")
    add("--steps", type=int, help="optimiser steps at most (default: whole epochs)")
    add("--try-steps", type=int, default=WARM + BLOCK, help="steps of the peer's trials")
    add("--peer", choices=sorted(NAMES), help="one way of the peer's instead of the fastest")
    add("--dev-rows", type=int, help="held-out rows at most (default: all)")
    add("--repeats", type=int, default=1, help="runs a side, each with another seed (1)")
    add("--threads", type=int, default=this_machine().physical_cores)
    add("--work", type=Path, default=REPOSITORY / "build" / "encoders")
    add("--json", type=Path, metavar="FILE", help="write all records here")
    options = parser.parse_args()
    if options.quick:
        options.steps, options.repeats, options.dev_rows = WARM + BLOCK, 1, 64
    options.peer = [NAMES[options.peer]] if options.peer else VARIANTS
    return options


def main() -> None:
    options = parse()
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"note: something else runs here (load {load:.1f}); times will be off")
    machine = environment()
    print(f"{machine['processor']}, {options.threads} threads, torch {machine['torch']}")
    found: dict[str, Any] = {"environment": machine}
    for name in [options.only] if options.only else SETS:
        bench = Bench(name, options)
        print(f"{name}: {bench.rows:,} rows, {len(bench.labels)} classes, {BATCH} a step")
        found[name] = bench.measure()
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
