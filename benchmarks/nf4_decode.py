"""How fast are 4-bit weights decoded and encoded, beside bitsandbytes on the same processor?

    python benchmarks/nf4_decode.py [--json FILE] [--quick]

A QLoRA step decodes every frozen weight twice, forward and backward. Here the four shapes of
SmolLM2-135M's Linears and one of 4096 × 4096 are decoded from NF4, block 64, double-quantised
scales, into bfloat16 and float32: `QuantLinear.dequantize` against `dequantize_4bit`, whose
processor path is native code. Encoding is timed too, as loading a model does it. Both sides give
the same bits, which is checked before anything is timed.

`all 210` is what one pass over SmolLM2's Linears takes: each shape as often as the model has it.
The two are timed in turn, pair by pair, so that a machine that slows down slows both; the ratio
is the median over pairs. Above 1, Etude is faster.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bitsandbytes.functional as peer
import torch

from etude.core.machine import this_machine
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.kernels import ops
from etude.tuning.quant import build
from etude.tuning.runs.environment import environment

# (rows, columns): how many of them SmolLM2-135M has.
SHAPES = {(576, 576): 60, (192, 576): 60, (1536, 576): 60, (576, 1536): 30, (4096, 4096): 0}


def seconds_a_call(work: Callable[[], object], budget: float) -> Callable[[], float]:
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


def compare(
    ours: Callable[[], object], theirs: Callable[[], object], pairs: int
) -> dict[str, float]:
    """Time both in turn; times in seconds, ratio theirs / ours."""
    mine, other = seconds_a_call(ours, 0.03), seconds_a_call(theirs, 0.03)
    timed = [(mine(), other()) for _ in range(pairs)]
    return {
        "etude": statistics.median(pair[0] for pair in timed),
        "bitsandbytes": statistics.median(pair[1] for pair in timed),
        "ratio": statistics.median(pair[1] / pair[0] for pair in timed),
    }


def decoding(shape: tuple[int, int], dtype: torch.dtype, pairs: int) -> dict[str, float]:
    """Decode one weight."""
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    layer = build.quantized(weight, QuantSpec(), dtype)
    packed, state = peer.quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
    if not torch.equal(layer.dequantize(dtype), peer.dequantize_4bit(packed, state)):
        raise SystemExit(f"{shape} in {dtype}: the two decode different weights")
    return compare(
        lambda: layer.dequantize(dtype), lambda: peer.dequantize_4bit(packed, state), pairs
    )


def encoding(shape: tuple[int, int], dtype: torch.dtype, pairs: int) -> dict[str, float]:
    """Quantise one weight, scales left in float32."""
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    return compare(
        lambda: ops.quantize_4bit(weight, 64, "nf4"),
        lambda: peer.quantize_4bit(weight, blocksize=64, quant_type="nf4"),
        pairs,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    parser.add_argument("--pairs", type=int, default=15, help="timed pairs a shape (15)")
    parser.add_argument("--threads", type=int, default=this_machine().physical_cores)
    parser.add_argument("--quick", action="store_true", help="five pairs")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pairs = 5 if options.quick else options.pairs

    figures: list[dict[str, Any]] = []
    print(f"{options.threads} threads, {this_machine().processor}, torch {torch.__version__}")
    print("milliseconds a weight; ratio above 1: Etude is faster\n")
    print(f"{'':36} {'etude':>9} {'bnb':>9} {'ratio':>7} {'Gweights/s':>11}")
    for work in (decoding, encoding):
        for dtype in (torch.bfloat16, torch.float32):
            whole = {"etude": 0.0, "bitsandbytes": 0.0}
            for shape, count in SHAPES.items():
                row = work(shape, dtype, pairs)
                for side in whole:
                    whole[side] += count * row[side]
                name = f"{work.__name__} {shape[0]} × {shape[1]}"
                show(name, dtype, row, shape[0] * shape[1])
                figures.append({"work": work.__name__, "dtype": str(dtype), "shape": shape, **row})
            total = sum(count * rows * columns for (rows, columns), count in SHAPES.items())
            row = {**whole, "ratio": whole["bitsandbytes"] / whole["etude"]}
            show(f"{work.__name__} all 210", dtype, row, total)
            figures.append({"work": work.__name__, "dtype": str(dtype), "shape": "all", **row})
    if options.json:
        content = {"environment": environment(), "threads": options.threads, "figures": figures}
        options.json.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def show(name: str, dtype: torch.dtype, row: dict[str, float], weights: int) -> None:
    kind = str(dtype).removeprefix("torch.")
    print(
        f"{name:26} {kind:9} {1e3 * row['etude']:9.3f} {1e3 * row['bitsandbytes']:9.3f} "
        f"{row['ratio']:7.2f} {weights / row['etude'] / 1e9:11.2f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
