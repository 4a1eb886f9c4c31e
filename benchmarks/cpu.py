"""Is Etude the fastest way to fine-tune on this processor? The whole table, beside TRL + PEFT.

    python benchmarks/cpu.py [--output build/bench] [--quick] [--resume]

Runs against_trl.py, int8_compute.py, generation.py and growth.py one after the other, each alone
on the machine, then prints their figures beside the goals and writes them as `cpu.json` and as a
plot, `cpu.svg`. About 50 minutes; `--quick` half of that, of fewer rows and runs. Both sides
compute in bfloat16 where the processor multiplies it, else in float32, and take four times as
long. The goals are for two cores with AVX-512 and bfloat16; elsewhere they are but a yardstick.
Integer products are left out where the processor has none.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from against_trl import DTYPE
from etude.core.machine import this_machine
from etude.tuning.runs.environment import environment
from flops import SIDE, matrix_rate, model_flops

HERE = Path(__file__).resolve().parent

INTEGER_PRODUCTS = {"avx512_vnni", "avx_vnni", "amx_int8", "i8mm"}
"""Instruction sets that multiply bytes; without them PyTorch's integer product is a plain loop."""

Row = tuple[str, float, float, bool]
"""What was measured, its value, the goal, and whether more is better."""


def run(script: str, *options: str, output: Path, resume: bool) -> dict[str, Any]:
    """Run one benchmark; return what it wrote, or, to resume, what it wrote before."""
    name = Path(script).stem
    if "10000" in options:  # a folder of its own: the figures of the other run point into theirs
        name += "-cold"
        options = (*options, "--work", str(output / name))
    file = output / f"{name}.json"
    if resume and file.exists():
        print(f"\n== {script} {' '.join(options)}: measured before", flush=True)
        return json.loads(file.read_text("utf-8"))
    print(f"\n== {script} {' '.join(options)}", flush=True)
    command = [sys.executable, str(HERE / script), *options, "--json", str(file)]
    began = time.perf_counter()
    subprocess.run(command, check=True, cwd=HERE.parent)
    print(f"== {time.perf_counter() - began:,.0f} s", flush=True)
    return json.loads(file.read_text("utf-8"))


def median_ratio(runs: list[dict[str, Any]], method: str, figure: str, per: str | None) -> float:
    """Return the median over repeats of Etude's figure over the peer's."""

    def value(record: dict[str, Any]) -> float:
        return record[figure] / record[per] if per else record[figure]

    ours, theirs = (
        sorted(
            (r for r in runs if r["method"] == method and r["side"] == side),
            key=lambda r: r["repeat"],
        )
        for side in ("etude", "trl")
    )
    return statistics.median(value(a) / value(b) for a, b in zip(ours, theirs, strict=True))


def shares(runs: list[dict[str, Any]], rate: float, model: str, rank: int) -> dict[str, float]:
    """Return, by method and side, the median share of the machine's rate that training kept up.

    TRL learns the same samples: what has to be computed is what Etude counted.
    """
    config = AutoConfig.from_pretrained(model)
    found: dict[str, float] = {}
    for method in ("lora", "qlora"):
        own = [r for r in runs if r["method"] == method]
        first = next(r for r in own if r["side"] == "etude")
        work = model_flops(
            config, rank, first["tokens"], first["trained_tokens"], first["attended_pairs"]
        )
        for side in ("etude", "trl"):
            seconds = [r["training_seconds"] for r in own if r["side"] == side]
            found[f"{method} {side}"] = work / statistics.median(seconds) / rate
    return found


def first_step(runs: list[dict[str, Any]], method: str) -> float:
    """Return Etude's time to the end of a first step over the peer's, for as many tokens.

    TRL begins with its longest samples: what its step took is scaled to the tokens of ours.
    """
    ours, theirs = (
        next(r for r in runs if (r["method"], r["side"]) == (method, side))
        for side in ("etude", "trl")
    )
    step = theirs["training_seconds"] * ours["tokens"] / theirs["tokens"]
    before = theirs["seconds_to_first_step"] - theirs["training_seconds"]
    return ours["seconds_to_first_step"] / (before + step)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--output", type=Path, default=HERE.parent / "build" / "bench")
    parser.add_argument("--quick", action="store_true", help="fewer rows and runs")
    parser.add_argument("--resume", action="store_true", help="keep what was measured before")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    output, quick = options.output, options.quick
    torch.set_num_threads(this_machine().physical_cores)
    dtype = getattr(torch, DTYPE)
    integral = not INTEGER_PRODUCTS.isdisjoint(this_machine().instruction_sets)
    rates = {DTYPE: matrix_rate(dtype)}
    if integral:
        rates["int8"] = matrix_rate(torch.int8)
    size = ("--rows", "96", "--repeats", "2") if quick else ("--rows", "192", "--repeats", "3")
    measured = partial(run, output=output, resume=options.resume)
    trl = measured("against_trl.py", *size)
    cold = measured("against_trl.py", "--rows", "10000", "--steps", "1", "--repeats", "1")
    int8 = measured("int8_compute.py", "--repeats", "1" if quick else "2") if integral else None
    generation = measured("generation.py", "--prompts", "8" if quick else "16")
    growth = measured("growth.py", *(("--lengths", "256", "2048", "8192") if quick else ()))
    rates[DTYPE] = max(rates[DTYPE], matrix_rate(dtype))

    share = shares(trl["runs"], rates[DTYPE], str(Path(trl["settings"]["work"]) / "model"), 16)
    rows: list[Row] = []
    for method, name in (("lora", "LoRA"), ("qlora", "QLoRA")):
        runs = trl["runs"]
        speed = median_ratio(runs, method, "tokens", "training_seconds")
        rows.append((f"{name}, real tokens/s, of TRL's", speed, 4.0, True))
        memory = median_ratio(runs, method, "peak_rss", None)
        rows.append((f"{name}, peak memory, of TRL's", memory, 0.25, False))
        loss = median_ratio(runs, method, "eval_loss", None)
        rows.append((f"{name}, evaluation loss, of TRL's", loss, 1.01, False))
        rows.append((f"{name}, share of the matrix rate", share[f"{method} etude"], 0.6, True))
        start = first_step(cold["runs"], method)
        rows.append((f"{name}, time to first step, 10,000 rows", start, 1 / 3, False))
    if int8:
        integers, plain = (int8["training"][name] for name in ("int8, integers", DTYPE))
        rows.append((f"int8 products, tokens/s, of {DTYPE}'s", integers["ratio"], 1.4, True))
        loss = integers["eval_loss"] / plain["eval_loss"]
        rows.append((f"int8 products, loss, of {DTYPE}'s", loss, 1.01, False))
    for kind, name in (("none", DTYPE), ("nf4", "NF4")):
        rows.append((f"answers, {name}, of transformers'", generation[kind]["ratio"], 2.0, True))
    few, many = growth["rows"][0], growth["rows"][-1]
    counts = f"{many['rows']:,} rows, of {few['rows']:,}"
    rows.append((f"tokens/s, {counts}", many["tokens_per_s"] / few["tokens_per_s"], 0.9, True))
    rows.append((f"peak memory, {counts}", many["peak_rss"] / few["peak_rss"], 1.1, False))

    machine = environment()
    print(
        f"\n{machine['processor']}, {this_machine().physical_cores} threads: products of "
        f"{SIDE} x {SIDE} at "
        + " and ".join(f"{rate / 1e9:,.0f} GFLOP/s in {name}" for name, rate in rates.items())
        + "\n"
    )
    for name, value, goal, more in rows:
        met = "met" if (value >= goal) == more or value == goal else "missed"
        sign = ">=" if more else "<="
        print(f"{name:<44}{value:>8.2f}   goal {sign} {goal:.2f}   {met}")
    content = {
        "environment": machine,
        "dtype": DTYPE,
        "rates": rates,
        "shares": share,
        "rows": [dict(zip(("name", "value", "goal", "more"), row, strict=True)) for row in rows],
        "peer": trl["peer"],
        "against_trl": [{k: v for k, v in r.items() if k != "losses"} for r in trl["runs"]],
        "int8": int8 and int8["training"] | {"errors_percent": int8["errors_percent"]},
        "generation": {kind: generation[kind] for kind in ("none", "nf4")},
        "growth": {name: growth[name] for name in ("rows", "lengths") if name in growth},
    }
    (output / "cpu.json").write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    (output / "cpu.svg").write_text(plot(rows), "utf-8")
    print(f"\nwritten: {output / 'cpu.json'}, {output / 'cpu.svg'}")


def plot(rows: list[Row]) -> str:
    """Draw each figure as a bar from 0, its goal as a line, all goals at the same place."""
    left, unit, line = 330, 200, 26
    height = line * len(rows) + 46
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 800 {height}" '
        'font-family="system-ui, sans-serif" font-size="13">',
        f'<rect width="800" height="{height}" fill="#fff"/>',
        f'<text x="{left + unit}" y="20" text-anchor="middle" fill="#444">goal</text>',
    ]
    for i, (name, value, goal, more) in enumerate(rows):
        y = 30 + i * line
        met = (value >= goal) == more or value == goal
        width = min(value / goal, 2.1) * unit
        told = f"{value:.2f} (goal {'at least' if more else 'at most'} {goal:.2f})"
        parts += [
            f'<text x="{left - 8}" y="{y + 14}" text-anchor="end">{name}</text>',
            f'<rect x="{left}" y="{y}" width="{width:.1f}" height="18" '
            f'fill="{"#2f7d5b" if met else "#b4552d"}"/>',
            f'<text x="{left + 6}" y="{y + 14}" fill="#fff">{told}</text>',
        ]
    parts.append(
        f'<line x1="{left + unit}" x2="{left + unit}" y1="26" y2="{height - 14}" stroke="#222" '
        'stroke-dasharray="4 3"/></svg>\n'
    )
    return "\n".join(parts)


if __name__ == "__main__":
    main()
