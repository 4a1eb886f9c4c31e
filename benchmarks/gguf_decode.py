"""How fast are a GGUF file's blocks decoded, beside llama.cpp's own Python package?

    python benchmarks/gguf_decode.py [--json FILE] [--quick]

A step on a native base (`quant.kind: native`) decodes every frozen weight twice, forward and
backward. Here weights of SmolLM2-135M's shapes, and in the K formats, whose blocks need rows of
256, of 2048 × 2048, are decoded from every format into float32: `dequantize_gguf` against
`gguf.quants.dequantize`, NumPy code, which has no other dtype. Into bfloat16, which training
computes in where the processor has it, ours is timed alone. Both sides give the same bits, which
is checked before anything is timed.

The last line is NF4 with double quantisation, what the same weights would be decoded from
otherwise. The two sides are timed in turn, pair by pair, so that a machine that slows down slows
both; the ratio is the median over pairs. Above 1, Etude is faster.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGMLQuantizationType
from gguf.quants import dequantize

from etude.core.machine import this_machine
from etude.tuning.kernels import ops
from etude.tuning.kernels.gguf import FORMATS, dequantize_gguf
from etude.tuning.runs.environment import environment

# (rows, columns): how many of them SmolLM2-135M has.
SMOLLM2 = {(576, 576): 60, (192, 576): 60, (1536, 576): 60, (576, 1536): 30}
WIDE = {(2048, 2048): 1}

# Where a block keeps its float16 scales.
HALVES = {"Q4_1": (0, 2), "Q5_1": (0, 2), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}


def blocks_of(kind: str, shape: tuple[int, int]) -> torch.Tensor:
    """Return random blocks, scales of any size but none that overflow."""
    form = FORMATS[kind]
    draw = np.random.default_rng(0)
    size = shape[1] // form.weights, form.bytes
    blocks = draw.integers(0, 256, (shape[0], *size), dtype=np.uint8)
    for start in HALVES.get(kind, (0,)):
        blocks[..., start + 1] &= 0x3B  # the upper bit of the exponent, and its sign
    return torch.from_numpy(blocks.reshape(shape[0], -1))


def seconds(work: Callable[[], object], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        work()
    return (time.perf_counter() - start) / calls


def measure(kind: str, shapes: dict[tuple[int, int], int], pairs: int) -> dict[str, float]:
    """Decode all the weights of `shapes`; nanoseconds a weight, ratio theirs / ours."""
    total = sum(rows * columns * count for (rows, columns), count in shapes.items())
    weights = {shape: blocks_of(kind, shape) for shape in shapes}
    for shape, blocks in weights.items():
        with np.errstate(all="ignore"):
            theirs = dequantize(blocks.numpy(), GGMLQuantizationType[kind])
        if not np.array_equal(dequantize_gguf(blocks, kind, shape, torch.float32), theirs):
            raise SystemExit(f"{kind}, {shape}: the two decode different weights")

    def ours(dtype: torch.dtype) -> float:
        return sum(
            count * seconds(lambda s=shape: dequantize_gguf(weights[s], kind, s, dtype), 3)
            for shape, count in shapes.items()
        )

    def peer() -> float:
        form = GGMLQuantizationType[kind]
        return sum(
            count * seconds(lambda s=shape: dequantize(weights[s].numpy(), form), 1)
            for shape, count in shapes.items()
        )

    ours(torch.float32)
    timed = [(ours(torch.float32), ours(torch.bfloat16), peer()) for _ in range(pairs)]
    return {
        "float32": statistics.median(one for one, _, _ in timed) / total * 1e9,
        "bfloat16": statistics.median(one for _, one, _ in timed) / total * 1e9,
        "gguf": statistics.median(one for _, _, one in timed) / total * 1e9,
        "ratio": statistics.median(theirs / one for one, _, theirs in timed),
    }


def nf4(shapes: dict[tuple[int, int], int], pairs: int) -> dict[str, float]:
    """The same for NF4 codes, block 64, scales quantised; nanoseconds a weight."""
    total = sum(rows * columns * count for (rows, columns), count in shapes.items())
    held: dict[tuple[int, int], Any] = {}
    for shape in shapes:
        codes, absmax = ops.quantize_nf4(torch.randn(shape), 64)
        held[shape] = codes, ops.quantize_absmax(absmax)

    def decode(shape: tuple[int, int], dtype: torch.dtype) -> None:
        codes, packed = held[shape]
        ops.dequantize_nf4(codes, ops.dequantize_absmax(*packed), shape, 64, dtype)

    def once(dtype: torch.dtype) -> float:
        return sum(
            count * seconds(lambda s=shape: decode(s, dtype), 3) for shape, count in shapes.items()
        )

    once(torch.float32)
    return {
        str(dtype).removeprefix("torch."): statistics.median(once(dtype) for _ in range(pairs))
        / total
        * 1e9
        for dtype in (torch.float32, torch.bfloat16)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    parser.add_argument("--pairs", type=int, default=9, help="timed pairs a format (9)")
    parser.add_argument("--threads", type=int, default=this_machine().physical_cores)
    parser.add_argument("--quick", action="store_true", help="three pairs")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pairs = 3 if options.quick else options.pairs

    print(f"{options.threads} threads, {this_machine().processor}, torch {torch.__version__}")
    print("nanoseconds a weight; ratio above 1: Etude is faster\n")
    print(f"{'':8} {'float32':>9} {'bfloat16':>9} {'gguf':>9} {'ratio':>7}")
    figures: dict[str, dict[str, float]] = {}
    for kind, form in FORMATS.items():
        row = measure(kind, SMOLLM2 if form.weights == 32 else WIDE, pairs)
        figures[kind] = row
        print(
            f"{kind:8} {row['float32']:9.3f} {row['bfloat16']:9.3f} {row['gguf']:9.2f} "
            f"{row['ratio']:7.1f}",
            flush=True,
        )
    figures["NF4"] = nf4(SMOLLM2, pairs)
    print(f"{'NF4':8} {figures['NF4']['float32']:9.3f} {figures['NF4']['bfloat16']:9.3f}")
    if options.json:
        content = {"environment": environment(), "threads": options.threads, "figures": figures}
        options.json.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
