"""Does TPE with halving find what random search finds, at half its compute?

    python benchmarks/search.py [--trials 40] [--seeds 3] [--rows 1500] [--write FILE]

Both search the shipped space on SST-2 (`$ETUDE_DATA`): so many training rows, compared on the
development set. Printed for each seed: the best accuracy and its standard error, the full trainings
that all trials amount to, and their seconds; then whether TPE's best is within one standard error
of random search's, and at which share of its compute: medians over the seeds. What is done is kept
in `build/search/`, so that the benchmark can be stopped and started again.

Accuracy is that on the development set, which chose the winner, for both alike.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from task_data import REPOSITORY, prepare

ARMS: dict[str, list[str]] = {
    "random": ["--sampler", "random", "--no-halving"],
    "tpe": ["--sampler", "tpe", "--halving"],
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--trials", type=int, default=40)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--rows", type=int, default=1500)
    options.add_argument("--write", type=Path, help="write the figures to this JSON file, too")
    chosen = options.parse_args()
    folder = REPOSITORY / "build" / "search"
    folder.mkdir(parents=True, exist_ok=True)
    train, held_out = _data(folder, chosen.rows)
    found: list[dict[str, Any]] = []
    for seed in range(chosen.seeds):
        for arm in ARMS:
            row = _arm(folder, arm, seed, chosen.trials, chosen.rows, train, held_out)
            found.append(row)
            print(
                f"seed {seed}  {arm:<7} best {100 * row['best']:.1f} % ±{100 * row['error']:.1f}  "
                f"{row['trained']:.1f} full trainings  {row['seconds']:.0f} s",
                flush=True,
            )
    pairs = [
        (first, second)
        for first in found
        for second in found
        if first["seed"] == second["seed"] and (first["arm"], second["arm"]) == ("random", "tpe")
    ]
    within = [second["best"] >= first["best"] - first["error"] for first, second in pairs]
    for unit in ("trained", "seconds"):
        share = statistics.median(second[unit] / first[unit] for first, second in pairs)
        print(f"compute of tpe as a share of random's, {unit}: median {share:.2f}")
    lead = statistics.median(second["best"] - first["best"] for first, second in pairs)
    print(f"tpe − random: median {100 * lead:+.1f} points; within one standard error: {within}")
    if chosen.write is not None:
        chosen.write.write_text(json.dumps({"rows": found}, indent=2) + "\n", "utf-8")


def _data(folder: Path, rows: int) -> tuple[Path, Path]:
    """Return so many training rows, the first ones, and the development set."""
    whole = prepare("sst2", folder)
    train = folder / f"train-{rows}.jsonl"
    lines = (whole / "train.jsonl").read_text("utf-8").splitlines(keepends=True)
    train.write_text("".join(lines[:rows]), "utf-8")
    return train, whole / "dev.jsonl"


def _arm(
    folder: Path, arm: str, seed: int, trials: int, rows: int, train: Path, held_out: Path
) -> dict[str, Any]:
    """Search, or read what an earlier call has found."""
    kept = folder / f"{arm}-{seed}-{trials}-{rows}.json"
    if not kept.exists():
        runs = folder / f"runs-{arm}-{seed}-{trials}-{rows}"
        words = [sys.executable, "-m", "etude", "search", "--runs", str(runs), "--json"]
        begun = list(runs.glob("*/search.json"))
        if begun:
            words += ["--resume", str(begun[0].parent)]
        else:
            words += ["search", "--data", str(train), "--eval-data", str(held_out)]
            words += [*ARMS[arm], "--trials", str(trials), "--seed", str(seed)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{arm}, seed {seed}: {done.stderr.strip()}")
        kept.write_text(done.stdout, "utf-8")
    result = json.loads(kept.read_text("utf-8"))
    best = result["trials"][result["selection"]["best"]]
    return {
        "arm": arm,
        "seed": seed,
        "best": best["objectives"][0],
        "error": best["error"],
        "trained": result["trained"],
        "seconds": sum(trial["seconds"] for trial in result["trials"]),
        "skipped": sum(trial["state"] in ("skipped", "no_memory") for trial in result["trials"]),
    }


if __name__ == "__main__":
    main()
