"""Is attention on the CPU faster in float32 than in bfloat16?

    python benchmarks/attention_dtype.py [--json FILE] [--quick]

`scaled_dot_product_attention`, causal, with the heads of SmolLM2-135M (9 query heads that share 3
key and value heads, 64 wide), one segment of 64 to 1024 tokens, forward alone and with its
backward. Inputs and outputs are bfloat16 in both columns, as the layers around them are; the
float32 column pays for its casts. The engine's packed attention computes in float32
(src/etude/tuning/fusion/packed_attention.py); this says for which lengths that is right.

The two are timed in turn, pair by pair, so that a machine that slows down slows both; the ratio
is the median over pairs. Above 1, float32 is faster.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from etude.core.machine import this_machine
from etude.tuning.runs.environment import environment

QUERY_HEADS, KEY_HEADS, WIDTH = 9, 3, 64
LENGTHS = (64, 128, 192, 256, 384, 512, 768, 1024)


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Attend causally in the dtype of the inputs; (1, heads, T, d)."""
    return F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)


def attend_in_float32(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Do the same in float32, casts to it and back included."""
    return attend(query.float(), key.float(), value.float()).to(query.dtype)


def forward(function: Callable[..., torch.Tensor], inputs: list[torch.Tensor]) -> None:
    """Run the forward pass alone, as evaluation does."""
    with torch.no_grad():
        function(*inputs)


def forward_and_backward(function: Callable[..., torch.Tensor], inputs: list[torch.Tensor]) -> None:
    """Run both passes, as training does."""
    output = function(*inputs)
    torch.autograd.grad(output, inputs, torch.ones_like(output))


def seconds_a_call(work: Callable[[], None], budget: float) -> Callable[[], float]:
    """Return a function that times enough calls of `work` to fill `budget` seconds, as a mean."""
    work()
    start = time.perf_counter()
    work()
    calls = max(1, round(budget / (time.perf_counter() - start)))

    def measure() -> float:
        start = time.perf_counter()
        for _ in range(calls):
            work()
        return (time.perf_counter() - start) / calls

    return measure


def compare(length: int, passes: Callable[..., None], pairs: int) -> dict[str, float]:
    """Time bfloat16 against float32 for one segment of `length` tokens; times in seconds."""
    generator = torch.Generator().manual_seed(length)
    inputs = [
        torch.randn(1, heads, length, WIDTH, generator=generator)
        .to(torch.bfloat16)
        .requires_grad_()
        for heads in (QUERY_HEADS, KEY_HEADS, KEY_HEADS)
    ]
    half = seconds_a_call(lambda: passes(attend, inputs), 0.05)
    single = seconds_a_call(lambda: passes(attend_in_float32, inputs), 0.05)
    timed = [(half(), single()) for _ in range(pairs)]
    return {
        "bfloat16": statistics.median(pair[0] for pair in timed),
        "float32": statistics.median(pair[1] for pair in timed),
        "ratio": statistics.median(pair[0] / pair[1] for pair in timed),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    parser.add_argument("--pairs", type=int, default=15, help="timed pairs a shape (15)")
    parser.add_argument("--threads", type=int, default=this_machine().physical_cores)
    parser.add_argument("--quick", action="store_true", help="three lengths, five pairs")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    lengths, pairs = ((64, 256, 1024), 5) if options.quick else (LENGTHS, options.pairs)

    figures: list[dict[str, Any]] = []
    print(f"{options.threads} threads, {this_machine().processor}, torch {torch.__version__}")
    print("milliseconds a call; ratio above 1: float32 with its casts is faster\n")
    print(f"{'':>6}   {'forward':^27}   {'forward and backward':^27}")
    titles = f"{'bfloat16':>9} {'float32':>9} {'ratio':>7}"
    print(f"{'T':>6}   {titles}   {titles}")
    for length in lengths:
        row = {
            passes.__name__: compare(length, passes, pairs)
            for passes in (forward, forward_and_backward)
        }
        cells = [
            f"{1e3 * r['bfloat16']:9.3f} {1e3 * r['float32']:9.3f} {r['ratio']:7.2f}"
            for r in row.values()
        ]
        print(f"{length:6}   {cells[0]}   {cells[1]}", flush=True)
        figures.append({"length": length, **row})
    if options.json:
        content = {"environment": environment(), "threads": options.threads, "figures": figures}
        options.json.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
