"""What does a packed row of any length cost, against rows filled up to a multiple of 64?

    python benchmarks/row_lengths.py

oneDNN, which multiplies matrices for PyTorch on a CPU, prepares code for each shape it meets and
keeps it. The same products run on rows of 350 to 512 tokens at random, once as they are and once
filled up, in processes of their own, taking turns; printed are tokens a second (filling not
counted) and resident memory after each turn.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import time

SHAPES = [(576, 576), (576, 192), (576, 1536), (1536, 576)]
"""The Linears of SmolLM2-135M, (in, out)."""


def measure(multiple: int, rows: int) -> dict[str, float]:
    """Run forward and input-gradient products on `rows` rows; return speed and memory."""
    import torch

    from etude.core.machine import rss, this_machine

    torch.set_num_threads(this_machine().physical_cores)
    weights = [torch.randn(n, k, dtype=torch.bfloat16) for k, n in SHAPES]
    draw = random.Random(0)
    tokens, began = 0, time.perf_counter()
    for _ in range(rows):
        length = draw.randint(350, 512)
        tokens += length
        filled = -(-length // multiple) * multiple
        for weight in weights:
            x = torch.randn(filled, weight.shape[1], dtype=torch.bfloat16)
            for _ in range(7):  # layers of a model share shapes
                ((x @ weight.t()) @ weight).sum()
    return {"tokens_per_s": tokens / (time.perf_counter() - began), "rss": rss()}


def main() -> None:
    """Run both sides in turn and print medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=160)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", help="write the figures here, too")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.rows)))
        return
    figures: dict[int, list[dict[str, float]]] = {1: [], 64: []}
    for _ in range(options.repeats):
        for multiple, runs in figures.items():
            command = [
                sys.executable,
                __file__,
                "--one",
                str(multiple),
                "--rows",
                str(options.rows),
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
            runs.append(json.loads(done.stdout))
    table = {
        multiple: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        for multiple, runs in figures.items()
    }
    for multiple, row in table.items():
        name = "any length" if multiple == 1 else f"multiples of {multiple}"
        print(f"{name:>16}  {row['tokens_per_s']:7.0f} tokens/s  {row['rss'] / 1e6:6.0f} MB")
    if options.json:
        from pathlib import Path

        Path(options.json).write_text(json.dumps(table, indent=2), "utf-8")


if __name__ == "__main__":
    main()
