"""How do Etude and TRL + PEFT (+ bitsandbytes) compare on the same rows of GSM8K?

    python benchmarks/against_trl.py [--only lora|qlora] [--repeats N] [--json FILE]

Both fine-tune SmolLM2-135M-Instruct from one model folder: rank 16, alpha 32, all linear layers,
in bfloat16 where the processor multiplies it and else in float32, which is many times faster
there; the same learning rate at every step, the same rows, 16 samples a step, answers trained
only, samples of at most 512 tokens; LoRA on the folder's weights, QLoRA on NF4 with double
quantisation. The peer lives in an environment of its own, made here on first use; what else it is
set to is said in peer/train_trl.py. Each run is a process of its own; the sides take turns, and
who goes first changes, so that a machine that slows down slows both.

Measured, by one ruler (peer/ruler.py):

- real tokens/s: tokens of samples, no padding, over the time from the start of the training loop
  to the end of its last step, first step included; trained tokens/s likewise;
- peak memory: the process's largest resident set, from start to saved adapter;
- time to the first step: from the start of the process to the end of its first optimiser step;
- total time: of the process, from start to exit;
- evaluation loss of both adapters by one evaluator (peer/evaluate.py says why that one).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from etude.core.machine import this_machine
from etude.core.paths import home
from etude.tuning.config.recipe import Recipe
from etude.tuning.data.packing import plan_steps
from etude.tuning.optim.schedules import learning_rate
from etude.tuning.runs.environment import environment

HERE = Path(__file__).resolve().parent
PEER = HERE / "peer"
REPOSITORY = HERE.parent
METHODS = ("lora", "qlora")
SIDES = ("etude", "trl")

RANK, ALPHA, MAX_LENGTH, BATCH = 16, 32.0, 512, 16
LR, WARMUP, CLIP = 1e-3, 0.1, 1.0
# What is fastest on this processor, for both sides: what Etude's `auto` chooses.
DTYPE = "bfloat16" if this_machine().native_bfloat16 else "float32"
PEER_PACKAGES = ("torch", "trl", "transformers", "peft", "accelerate", "bitsandbytes", "datasets")


def python_of(venv: Path) -> Path:
    """Return the interpreter of a virtual environment."""
    return venv / "bin" / "python"


def make_peer(venv: Path) -> dict[str, str]:
    """Make the peer's environment if it is not there as wanted, and return its versions.

    It gets the PyTorch that Etude runs on, so that the two differ in nothing below them.
    """
    requirements = PEER / "requirements.txt"
    torch = f"torch=={metadata.version('torch').partition('+')[0]}"
    stamp = venv / ".peer"
    wanted = f"{torch}\n{requirements.read_text('utf-8')}"
    if not stamp.exists() or stamp.read_text("utf-8") != wanted:
        print(f"making the peer's environment in {venv} (minutes, once)", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        install = [str(python_of(venv)), "-m", "pip", "install", "--quiet"]
        subprocess.run([*install, torch], check=True)
        subprocess.run([*install, "-r", str(requirements)], check=True)
        stamp.write_text(wanted, "utf-8")
    ask = (
        "import json, sys; from importlib import metadata; "
        "print(json.dumps({p: metadata.version(p) for p in sys.argv[1:]}))"
    )
    answer = subprocess.run(
        [str(python_of(venv)), "-c", ask, *PEER_PACKAGES],
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(answer.stdout)


class Work:
    """The folder that everything is written in, and the processes that write there."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.folder = folder.resolve()
        self.options = options
        self.folder.mkdir(parents=True, exist_ok=True)

    def run(self, python: Path, script: str, name: str, settings: dict[str, Any]) -> float:
        """Run one script of peer/ on its settings; return its seconds from start to exit."""
        place = self.folder / name
        place.mkdir(parents=True, exist_ok=True)
        file = place / "settings.json"
        threads = str(self.options.threads)
        settings = {**settings, "threads": self.options.threads, "launched": time.time()}
        file.write_text(json.dumps(settings, indent=2) + "\n", "utf-8")
        # Nothing is to be fetched in the timed part, and no library may choose its own threads.
        surroundings = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": threads}
        if script == "train_etude.py":
            surroundings["ETUDE_HOME"] = str(fresh_home(place / "home"))
        log = place / "log.txt"
        began = time.perf_counter()
        with log.open("w") as output:
            try:
                code = subprocess.run(
                    [str(python), str(PEER / script), str(file)],
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=surroundings,
                    timeout=60 * self.options.limit,
                    check=False,
                ).returncode
            except subprocess.TimeoutExpired:
                sys.exit(f"{script} ({name}) took over {self.options.limit:g} minutes; see {log}")
        if code != 0:
            tail = log.read_text("utf-8", "replace").splitlines()[-15:]
            sys.exit("\n".join([f"{script} ({name}) failed; the end of {log}:", *tail]))
        return time.perf_counter() - began


def fresh_home(place: Path) -> Path:
    """Return a data folder without tokens of an earlier run; compiled kernels are the user's."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    native = home() / "native"
    native.mkdir(parents=True, exist_ok=True)
    (place / "native").symlink_to(native.absolute(), target_is_directory=True)
    return place


def gsm8k() -> Path:
    """Return the folder of GSM8K: below `$ETUDE_DATA`, or `shared/data` beside the repository."""
    chosen = os.environ.get("ETUDE_DATA")
    data = Path(chosen) if chosen else REPOSITORY.parent / "shared" / "data"
    folder = data / "instruct" / "gsm8k"
    if not (folder / "train.jsonl").is_file():
        sys.exit(f"no GSM8K at {folder}: set ETUDE_DATA to the folder that holds instruct/gsm8k")
    return folder


def recipe(work: Path, method: str, steps: int, options: argparse.Namespace, seed: int) -> Recipe:
    """Return Etude's side as the recipe that a person would write."""
    return Recipe.parse(
        {
            "name": "etude",
            "model": {"id": str(work / "model"), "dtype": DTYPE},
            "adapter": {"rank": RANK, "alpha": ALPHA, "target_modules": "all-linear"},
            "quant": {"kind": "nf4" if method == "qlora" else "none", "block": 64, "double": True},
            "data": {
                "train": str(work / "train.jsonl"),
                "eval": str(work / "one_row.jsonl"),
                "max_length": MAX_LENGTH,
            },
            "train": {
                "epochs": math.ceil(steps * BATCH / options.rows),
                "max_steps": steps,
                "batch_samples": BATCH,
                "lr": LR,
                "lr_scheduler": "cosine",
                "min_lr_ratio": 0.0,
                "warmup_ratio": WARMUP,
                "max_grad_norm": CLIP,
                # One checkpoint, at the end: the peer writes none.
                "save_every": steps,
                "threads": options.threads,
                "seed": seed,
            },
            "eval": {"generate": 0, "show": 0},
        }
    )


def same_order(folder: Path, recipe: Recipe, steps: int) -> list[int]:
    """Return the rows in the order of Etude's steps, those of one step by length."""
    lengths: list[int] = json.loads((folder / "rows.json").read_text("utf-8"))["lengths"]
    order: list[int] = []
    for epoch in range(math.ceil(recipe.train.epochs)):
        for step in plan_steps(lengths, BATCH, MAX_LENGTH, recipe.train.seed, epoch):
            members = [index for row in step for index in row]
            order += sorted(members, key=lambda index: -lengths[index])
    return order[: steps * BATCH]


def train(work: Work, method: str, side: str, repeat: int, steps: int) -> dict[str, Any]:
    """Train once and return the record."""
    options = work.options
    name = f"{method}-{repeat}/{side}"
    place = work.folder / name
    etude = recipe(work.folder, method, steps, options, seed=repeat)
    rates = [learning_rate(etude.train, step, steps) for step in range(steps)]
    settings: dict[str, Any] = {"record": str(place / "record.json"), "output": str(place)}
    if side == "etude":
        settings["recipe"] = etude.model_dump(mode="json")
        seconds = work.run(Path(sys.executable), "train_etude.py", name, settings)
    else:
        settings |= {
            "model": str(work.folder / "model"),
            "train": str(work.folder / "train.jsonl"),
            "method": method,
            "dtype": DTYPE,
            "rank": RANK,
            "alpha": ALPHA,
            "max_length": MAX_LENGTH,
            "batch_samples": BATCH,
            "micro_batch": options.peer_batch,
            "rates": rates,
            "clip": CLIP,
            "seed": repeat,
            "adapter_dtype": options.peer_adapters,
            "order": same_order(work.folder, etude, steps) if options.same_batches else None,
        }
        seconds = work.run(python_of(options.venv), "train_trl.py", name, settings)
    record: dict[str, Any] = json.loads((place / "record.json").read_text("utf-8"))
    return {**record, "method": method, "side": side, "repeat": repeat, "total_seconds": seconds}


def evaluate(work: Work, method: str) -> dict[str, float]:
    """Return the evaluation losses of the base and of every adapter, by `side-repeat`."""
    place = work.folder / f"{method}-evaluation"
    adapters = {
        f"{side}-{repeat}": str(work.folder / f"{method}-{repeat}" / side / "adapter")
        for repeat in range(work.options.repeats)
        for side in SIDES
    }
    settings = {
        "model": str(work.folder / "model"),
        "evaluation": str(work.folder / "evaluation.jsonl"),
        "method": method,
        "dtype": DTYPE,
        "adapters": adapters,
        "record": str(place / "record.json"),
    }
    work.run(python_of(work.options.venv), "evaluate.py", place.name, settings)
    return json.loads((place / "record.json").read_text("utf-8"))["losses"]


Figure = Callable[[dict[str, Any]], float]

FIGURES: list[tuple[str, str, Figure]] = [
    ("real tokens/s", "{:,.1f}", lambda r: r["tokens"] / r["training_seconds"]),
    ("trained tokens/s", "{:,.1f}", lambda r: r["trained_tokens"] / r["training_seconds"]),
    ("computed per real token", "{:.3f}", lambda r: r["computed_tokens"] / r["tokens"]),
    ("training, s", "{:,.1f}", lambda r: r["training_seconds"]),
    ("time to first step, s", "{:.1f}", lambda r: r["seconds_to_first_step"]),
    ("total time, s", "{:,.1f}", lambda r: r["total_seconds"]),
    ("peak memory, MiB", "{:,.0f}", lambda r: r["peak_rss"] / 2**20),
    ("evaluation loss", "{:.4f}", lambda r: r["eval_loss"]),
    ("training loss, last step", "{:.4f}", lambda r: r["losses"][-1]),
]


def print_table(method: str, records: list[dict[str, Any]], base_loss: float) -> None:
    """Print the medians of both sides, the extremes, and their ratio."""
    title = {"lora": "LoRA", "qlora": "QLoRA"}[method]
    print(f"\n{title}: base's evaluation loss {base_loss:.4f}")
    print(f"{'median (least to most)':<26}{'Etude':>28}{'TRL + PEFT':>28}{'Etude / TRL':>13}")
    for label, layout, figure in FIGURES:
        cells: list[str] = []
        medians: list[float] = []
        for side in SIDES:
            values = sorted(figure(r) for r in records if r["side"] == side)
            median = statistics.median(values)
            medians.append(median)
            extremes = " to ".join(layout.format(v) for v in (values[0], values[-1]))
            cells.append(f"{layout.format(median)} ({extremes})")
        print(f"{label:<26}{cells[0]:>28}{cells[1]:>28}{medians[0] / medians[1]:>13.2f}")
    for side in SIDES:
        first = next(r for r in records if r["side"] == side)
        print(
            f"{side}: {first['tokens']:,} tokens a run, {first['trained_tokens']:,} of them "
            f"trained; {first['trainable_parameters']:,} parameters in "
            f"{', '.join(first['adapter_dtypes'])}"
        )


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--only", choices=METHODS, help="one method instead of both")
    add("--rows", type=int, default=192, help="training rows, a multiple of 16 (192)")
    add("--steps", type=int, help="optimiser steps (default: one pass over the rows)")
    add("--repeats", type=int, default=3, help="runs a side and method (3)")
    add("--eval-rows", type=int, default=48, help="rows the adapters are evaluated on (48)")
    add("--peer-batch", type=int, default=4, choices=(1, 2, 4, 8, 16), help="TRL's batch (4)")
    add(
        "--peer-adapters",
        choices=("default", "float32"),
        default="default",
        help="float32 undoes TRL's rounding of QLoRA's adapters to bfloat16 (README.md)",
    )
    add(
        "--same-batches",
        action="store_true",
        help="the peer's steps take Etude's samples: compares losses, and is slower for the peer",
    )
    add("--threads", type=int, default=this_machine().physical_cores)
    add("--limit", type=float, default=30.0, help="minutes that one process may take (30)")
    add("--venv", type=Path, default=REPOSITORY / ".venv-peer", help="the peer's environment")
    add("--work", type=Path, default=REPOSITORY / "build" / "against_trl")
    add("--json", type=Path, metavar="FILE", help="write all records here")
    options = parser.parse_args()
    if options.rows < BATCH or options.rows % BATCH:
        # A last, smaller step would weigh its rows differently on the two sides.
        parser.error(f"--rows must be a multiple of {BATCH}")
    if options.repeats < 1 or (options.steps is not None and options.steps < 1):
        parser.error("--repeats and --steps must be at least 1")
    return options


def main() -> None:
    options = parse()
    steps = options.steps or options.rows // BATCH
    methods = [options.only] if options.only else list(METHODS)
    versions = make_peer(options.venv.resolve())
    work = Work(options.work, options)
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"note: something else runs here (load {load:.1f}); times will be off")
    work.run(
        Path(sys.executable),
        "prepare.py",
        "prepare",
        {
            "model": "smollm2-135m",
            "data": str(gsm8k()),
            "output": str(work.folder),
            "rows": options.rows,
            "eval_rows": options.eval_rows,
            "max_length": MAX_LENGTH,
        },
    )
    rows = json.loads((work.folder / "rows.json").read_text("utf-8"))
    machine = environment()
    print(
        f"{machine['processor']}, {options.threads} threads, {DTYPE}, torch {machine['torch']}; "
        "peer: " + ", ".join(f"{package} {version}" for package, version in versions.items())
    )
    print(
        f"GSM8K: {rows['rows']} rows, {rows['tokens']:,} tokens ({rows['trained_tokens']:,} in "
        f"answers), {steps} steps of {BATCH}; evaluated on {rows['eval_rows']} rows",
        flush=True,
    )
    records: list[dict[str, Any]] = []
    losses: dict[str, dict[str, float]] = {}
    for repeat in range(options.repeats):
        for method in methods:
            for side in SIDES if repeat % 2 == 0 else reversed(SIDES):
                record = train(work, method, side, repeat, steps)
                records.append(record)
                speed = record["tokens"] / record["training_seconds"]
                print(
                    f"  {method} {side} {repeat + 1}/{options.repeats}: {speed:.1f} tokens/s, "
                    f"{record['total_seconds']:.0f} s",
                    flush=True,
                )
    for method in methods:
        losses[method] = evaluate(work, method)
        own = [record for record in records if record["method"] == method]
        for record in own:
            record["eval_loss"] = losses[method][f"{record['side']}-{record['repeat']}"]
        print_table(method, own, losses[method]["base"])
    if options.json:
        content = {
            "environment": machine,
            "peer": versions,
            "dtype": DTYPE,
            "settings": {k: str(v) for k, v in vars(options).items()} | {"steps": steps},
            "rows": rows,
            "losses": losses,
            "runs": records,
        }
        options.json.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
