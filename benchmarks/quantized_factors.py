"""What do quantised factors save, and what do they cost?

    python benchmarks/quantized_factors.py [--steps 32] [--bits 2 3 4 8] [--scale row] [--json FILE]

Trains recipes/docstrings.yaml once with float32 factors and once at every width with the factors
rounded in every forward pass (QAT). The float32 run's factors are rounded after training, too
(PTQ). For each width: the bytes of the adapter's weights, the error ‖ΔW - Û V̂ᵀ‖ / ‖ΔW‖ of PTQ over
all modules (Frobenius), and the evaluation loss of both, beside that of float32. Everything but the
rounding is alike: data, seed, steps.

Two promises are checked: 8 bits cost no measurable loss (under 0.1 %), 4 bits by QAT less than 1 %.
Exit code 1 if one is broken.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from etude.core.progress import SilentProgress
from etude.tuning.adapters.fake_quant import round_factors
from etude.tuning.adapters.multi_adapter import adapted_layers, adapter_parameters
from etude.tuning.adapters.save import save_adapter
from etude.tuning.config.recipe import Recipe
from etude.tuning.config.sections.adapter import FactorSpec
from etude.tuning.evaluation import evaluate_run
from etude.tuning.objectives.base import SFT
from etude.tuning.pipeline import tune
from etude.tuning.predictor import load
from etude.tuning.runs.environment import environment
from etude.tuning.runs.folder import RunFolder
from etude.tuning.tasks.registry import task_named

REPOSITORY = Path(__file__).resolve().parent.parent


def recipe_with(base: Recipe, factors: FactorSpec) -> Recipe:
    """Return the recipe with these factors."""
    return base.model_copy(update={"adapter": base.adapter.model_copy(update={"factors": factors})})


def adapter_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def changes(model: Any) -> dict[str, torch.Tensor]:
    return {name: layer.delta() for name, layer in adapted_layers(model).items()}


def relative_error(exact: dict[str, torch.Tensor], found: dict[str, torch.Tensor]) -> float:
    def squares(deltas: dict[str, torch.Tensor]) -> float:
        return sum(float(delta.double().square().sum()) for delta in deltas.values())

    return math.sqrt(squares({n: found[n] - exact[n] for n in exact}) / squares(exact))


def rounded_after(run: Path, recipe: Recipe, widths: list[int], scale: Any) -> list[dict[str, Any]]:
    """Round the factors of a finished float32 run to each width, and measure."""
    tuned = load(RunFolder.open(run))
    model = tuned.loaded.model
    task, progress = task_named(recipe.task), SilentProgress()
    data = task.encode(task.read(recipe), tuned.loaded, recipe, progress)
    parameters = adapter_parameters(model)
    kept = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    exact = changes(model)
    rows: list[dict[str, Any]] = []
    for bits in widths:
        factors = FactorSpec(bits=bits, when="after", scale=scale)
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(kept[name])
        round_factors(model, factors)
        with tempfile.TemporaryDirectory() as folder:
            spec = recipe_with(recipe, factors).adapter
            save_adapter(model, folder, spec, tuned.loaded.origin)
            size = adapter_bytes(Path(folder))
        rows.append(
            {
                "bits": bits,
                "bytes": size,
                "error": relative_error(exact, changes(model)),
                "ptq_loss": task.measure(tuned.loaded, data, recipe, SFT(), progress).loss,
            }
        )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--recipe", type=Path, default=REPOSITORY / "recipes" / "docstrings.yaml")
    parser.add_argument("--steps", type=int, default=32, help="optimiser steps of every run")
    parser.add_argument("--bits", type=int, nargs="+", default=[2, 3, 4, 5, 6, 8])
    parser.add_argument("--scale", choices=["tensor", "row", "block"], default="row")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()

    fixed = ["train.max_minutes=null", f"train.max_steps={options.steps}", "eval.generate=0"]
    recipe = Recipe.read(options.recipe, [*fixed, *options.set])
    with tempfile.TemporaryDirectory() as work:
        plain = tune(recipe, base=Path(work) / "float32")
        loss = evaluate_run(RunFolder.open(plain.folder))["tuned"]["loss"]
        size = adapter_bytes(plain.folder / "adapter")
        print(f"float32: {size / 1e6:.2f} MB, evaluation loss {loss:.4f}", flush=True)
        rows = rounded_after(plain.folder, recipe, options.bits, options.scale)
        for row in rows:
            factors = FactorSpec(bits=row["bits"], when="training", scale=options.scale)
            trained = tune(recipe_with(recipe, factors), base=Path(work) / f"qat{row['bits']}")
            row["qat_loss"] = trained.summary["eval_loss"]
            print(
                f"{row['bits']} bits: {row['bytes'] / 1e6:.2f} MB, error {row['error']:.4f}, loss "
                f"{row['ptq_loss']:.4f} (PTQ, {row['ptq_loss'] / loss - 1:+.2%}), "
                f"{row['qat_loss']:.4f} (QAT, {row['qat_loss'] / loss - 1:+.2%})",
                flush=True,
            )
    results = {
        "recipe": options.recipe.name,
        "steps": options.steps,
        "scale": options.scale,
        "float32": {"bytes": size, "loss": loss, "loss_before": plain.summary["eval_loss_before"]},
        "widths": rows,
        "environment": environment(),
    }
    if options.json:
        options.json.write_text(json.dumps(results, indent=2), "utf-8")
    by_bits = {row["bits"]: row for row in rows}
    broken = []
    if 8 in by_bits and max(by_bits[8]["ptq_loss"], by_bits[8]["qat_loss"]) > 1.001 * loss:
        broken.append("8 bits cost more than 0.1 % of loss")
    if 4 in by_bits and by_bits[4]["qat_loss"] > 1.01 * loss:
        broken.append("4 bits by QAT cost more than 1 % of loss")
    print("; ".join(broken) or "both promises hold")
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main())
