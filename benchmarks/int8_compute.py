"""What do integer products of the frozen base gain, and what do they cost in error?

    python benchmarks/int8_compute.py [--rows 192] [--repeats 2] [--json FILE]

LoRA of rank 16 on SmolLM2-135M-Instruct, GSM8K, 16 samples a step: on bfloat16 weights (float32
where the processor does not multiply bfloat16), on int8 weights that are decoded for each product,
and on int8 weights multiplied as integers (`quant.compute: int8`). The three take turns. Printed:
real tokens a second, ratio to the first, evaluation loss after training (Etude's own evaluator);
then the loss of the untrained base with each kind of layer multiplied in integers, with and
without the columns that keep their numbers.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import torch

from against_trl import DTYPE, REPOSITORY, Work, gsm8k, recipe
from etude.core.machine import this_machine
from etude.core.progress import SilentProgress
from etude.tuning.config.recipe import Recipe
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.kernels import int8_matmul
from etude.tuning.models.load import load_model
from etude.tuning.quant.int8 import Int8Linear
from etude.tuning.runs.environment import environment
from etude.tuning.tasks.registry import task_named
from etude.tuning.training.evaluate import evaluation_loss

HELD = {
    DTYPE: {"kind": "none"},
    "int8, decoded": {"kind": "int8"},
    "int8, integers": {"kind": "int8", "compute": "int8"},
}
LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def trained(work: Work, name: str, repeat: int, steps: int) -> dict[str, Any]:
    """Train once and return the record, with the evaluation loss of the end."""
    fields = recipe(work.folder, "lora", steps, work.options, seed=repeat).model_dump(mode="json")
    fields["quant"] |= HELD[name]
    fields["data"]["eval"] = str(work.folder / "held_out.jsonl")
    place = work.folder / name.replace(", ", "-") / str(repeat)
    settings = {"record": str(place / "record.json"), "output": str(place), "recipe": fields}
    work.run(Path(sys.executable), "train_etude.py", str(place), settings)
    return json.loads((place / "record.json").read_text("utf-8"))


def error_table(work: Work) -> list[tuple[str, float, float]]:
    """Return for each kind of layer how much its integer products raise the base's loss, in %."""
    fields = recipe(work.folder, "lora", 1, work.options, seed=0).model_dump(mode="json")
    fields["quant"] |= {"kind": "int8"}
    chosen, task = Recipe.parse(fields), task_named("chat")
    loaded = load_model(chosen.model, chosen.quant)
    data = task.encode(task.read(chosen), loaded, chosen, SilentProgress())
    samples = data.train.samples[:48]
    layers = {n: m for n, m in loaded.model.named_modules() if isinstance(m, Int8Linear)}

    def loss(kinds: tuple[str, ...]) -> float:
        for name, layer in layers.items():
            whole = any(kind in name for kind in kinds)
            layer.spec = QuantSpec(kind="int8", compute="int8" if whole else "decoded")
        return evaluation_loss(loaded.model, samples, 1024)

    base, kept = loss(()), int8_matmul.OUTLIERS
    rows: list[tuple[str, float, float]] = []
    for name, kinds in {**{kind: (kind,) for kind in LAYERS}, "all": LAYERS}.items():
        int8_matmul.OUTLIERS = 0
        without = loss(kinds)
        int8_matmul.OUTLIERS = kept
        rows.append((name, 100 * (without / base - 1), 100 * (loss(kinds) / base - 1)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=192, help="training rows (192)")
    parser.add_argument("--repeats", type=int, default=2, help="runs of each (2)")
    parser.add_argument("--threads", type=int, default=this_machine().physical_cores)
    parser.add_argument("--work", type=Path, default=REPOSITORY / "build" / "int8_compute")
    parser.add_argument("--limit", type=float, default=30.0, help="minutes a process may take")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    work = Work(options.work, options)
    prepare = {"model": "smollm2-135m", "data": str(gsm8k()), "output": str(work.folder)}
    sizes = {"rows": options.rows, "eval_rows": 48, "max_length": 512}
    work.run(Path(sys.executable), "prepare.py", "prepare", prepare | sizes)
    lines = (gsm8k() / "test.jsonl").read_text("utf-8").splitlines()[:48]
    asked = [json.loads(line) for line in lines]
    turns = [{"prompt": row["question"], "completion": row["answer"]} for row in asked]
    held_out = "".join(json.dumps(row) + "\n" for row in turns)
    (work.folder / "held_out.jsonl").write_text(held_out, "utf-8")
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in HELD}
    for repeat in range(options.repeats):
        for name in list(HELD)[:: -1 if repeat % 2 else 1]:
            found[name].append(trained(work, name, repeat, options.rows // 16))
    plain = [r["tokens"] / r["training_seconds"] for r in found[DTYPE]]
    figures: dict[str, Any] = {}
    for name, records in found.items():
        speed = [r["tokens"] / r["training_seconds"] for r in records]
        ratio = statistics.median(a / b for a, b in zip(speed, plain, strict=True))
        loss = statistics.median(r["eval_loss_after"] for r in records)
        figures[name] = {"tokens_per_s": speed, "ratio": ratio, "eval_loss": loss}
        print(f"{name:<16}{statistics.median(speed):8,.0f} tokens/s  {ratio:.2f}  loss {loss:.4f}")
    table = error_table(work)
    print("\nrise of the untrained base's loss, %: all columns rounded, the largest kept")
    for name, without, kept in table:
        print(f"{name:<16}{without:8.2f}{kept:8.2f}")
    if options.json:
        content = {"environment": environment(), "training": figures, "errors_percent": table}
        options.json.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
