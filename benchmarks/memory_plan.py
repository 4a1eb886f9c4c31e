"""How near is the memory plan to what a run really takes?

    python benchmarks/memory_plan.py [--only NAME ...] [--jobs 2] [--json FILE]

Fourteen configurations on a processor: SmolLM2-135M and made-up models of other shapes (Qwen2,
GPT-2, a wide Llama), full fine-tuning, LoRA and QLoRA, with and without
checkpointing and packing, other lengths, ranks, kinds and optimisers. Each is planned from its
configuration alone, then trained for a few steps in a process of its own, on rows of made-up words
whose lengths vary up to the longest that the recipe lets in, and the process's peak (VmHWM) is
compared with the plan. Answers are not generated, as in a plan for training alone. Exit code 1 if
a prediction is off by more than 10 %. About fifteen minutes on two cores.

The allocator's two constants were set by the first eight rows, all of them adapters on SmolLM2;
full fine-tuning and the other models test them.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from etude.tuning.config.recipe import Recipe
from etude.tuning.memory.estimate import estimate_memory
from etude.tuning.memory.model_configs import config_of
from etude.tuning.models.load import open_checkpoint
from etude.tuning.models.pull import pull
from etude.tuning.models.sources import resolve
from etude.tuning.placement import Placement
from etude.tuning.runs.environment import environment

STEPS = 4

SMOL: dict[str, Any] = {"model": "smollm2-135m"}
FULL = {"adapter": {"kind": "full"}, "quant": {"kind": "none"}}
DENSE = {"quant": {"kind": "none"}}

CASES: dict[str, dict[str, Any]] = {
    "smollm2 lora": {**SMOL, **DENSE},
    "smollm2 qlora": {**SMOL},
    "smollm2 qlora, checkpointing": {**SMOL, "train": {"gradient_checkpointing": True}},
    "smollm2 qlora, 2048 tokens": {
        **SMOL,
        "data": {"max_length": 1024},
        "train": {"micro_tokens": 2048},
    },
    "smollm2 lora, padded": {**SMOL, **DENSE, "data": {"packing": False, "max_length": 256}},
    "smollm2 lora, float32": {
        **DENSE,
        "model": {"id": "smollm2-135m", "dtype": "float32"},
        "train": {"micro_tokens": 512},
    },
    "smollm2 dora on nf4": {**SMOL, "adapter": {"kind": "dora"}, "train": {"micro_tokens": 512}},
    "smollm2 on int8, rank 64": {**SMOL, "quant": {"kind": "int8"}, "adapter": {"rank": 64}},
    "smollm2 full": {**SMOL, **FULL, "train": {"micro_tokens": 512}},
    "smollm2 full, adamw8bit": {
        **SMOL,
        **FULL,
        "train": {"micro_tokens": 512, "optimizer": "adamw8bit"},
    },
    "qwen2 lora, rank 64": {"model": "qwen2", **DENSE, "adapter": {"rank": 64}},
    "qwen2 full, lion": {"model": "qwen2", **FULL, "train": {"optimizer": "lion", "lr": 1e-5}},
    "gpt2 lora": {"model": "gpt2", **DENSE, "data": {"max_length": 512}},
    "wide llama qlora": {"model": "wide"},
}


def shapes() -> dict[str, Any]:
    """Return the configurations of the made-up models."""
    from transformers import GPT2Config, LlamaConfig, Qwen2Config

    return {
        "qwen2": Qwen2Config(
            hidden_size=896,
            intermediate_size=4864,
            num_hidden_layers=12,
            num_attention_heads=14,
            num_key_value_heads=2,
            vocab_size=49152,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
        ),
        # Attention dropout keeps the square of a sample's length, and is planned for the longest:
        # with it, rows of other lengths take less.
        "gpt2": GPT2Config(vocab_size=49152, n_positions=1024, attn_pdrop=0.0),
        "wide": LlamaConfig(
            hidden_size=2048,
            intermediate_size=5632,
            num_hidden_layers=6,
            num_attention_heads=32,
            num_key_value_heads=4,
            vocab_size=49152,
            max_position_embeddings=2048,
        ),
    }


def write_models(folder: Path, wanted: set[str]) -> None:
    """Write the made-up models, random weights, with SmolLM2's tokenizer."""
    import transformers

    pull("smollm2-135m")
    with closing(open_checkpoint(resolve("smollm2-135m"))) as checkpoint:
        tokenizer = checkpoint.tokenizer()
    for name, config in shapes().items():
        if name in wanted:
            auto: Any = transformers.AutoModelForCausalLM
            model = auto.from_config(config, dtype=torch.bfloat16)
            model.save_pretrained(folder / name)
            tokenizer.save_pretrained(folder / name)


def write_rows(file: Path, longest: int, seed: int = 0) -> None:
    """Write rows of one-token words, three tenths of the longest length up to all of it."""
    draw = random.Random(seed)
    words = [
        "time",
        "year",
        "people",
        "way",
        "day",
        "man",
        "thing",
        "woman",
        "life",
        "child",
        "world",
        "school",
        "state",
        "family",
    ]
    with file.open("w", encoding="utf-8") as out:
        for _ in range(40):
            count = int(longest * draw.uniform(0.3, 0.9)) - 40
            text = " ".join(draw.choice(words) for _ in range(max(4, count)))
            out.write(json.dumps({"prompt": "Go on.", "completion": text}) + "\n")


def recipe_of(case: dict[str, Any], folder: Path) -> Recipe:
    """Return the recipe of a case, its data written into `folder`."""
    sections = {
        name: dict(value) if isinstance(value, dict) else value for name, value in case.items()
    }
    data = {"max_length": 512, "eval_fraction": 0.1, **sections.pop("data", {})}
    rows = folder / f"rows-{data['max_length']}.jsonl"
    if not rows.exists():
        write_rows(rows, data["max_length"])
    train = {
        "max_steps": STEPS,
        "batch_samples": 8,
        "micro_tokens": 1024,
        "threads": 1,
        "save_every": 1000,
        **sections.pop("train", {}),
    }
    if isinstance(sections["model"], str) and sections["model"] != "smollm2-135m":
        sections["model"] = str(folder / sections["model"])
    fields = {
        "name": "plan",
        "data": {"train": str(rows), **data},
        "train": train,
        "eval": {"generate": 0},
        **sections,
    }
    return Recipe.parse(fields)


WORKER = """
import sys, tempfile
from etude.core.machine import peak_rss
from etude.tuning.config.recipe import Recipe
from etude.tuning.pipeline import tune
with tempfile.TemporaryDirectory() as base:
    tune(Recipe.read(sys.argv[1]), base=base, anyway=True)
print(peak_rss())
"""


def measure(recipe: Recipe, file: Path) -> int:
    """Return the peak of a process that trains by `recipe`, bytes."""
    file.write_text(recipe.to_yaml(), "utf-8")
    done = subprocess.run(
        [sys.executable, "-c", WORKER, str(file)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{file.stem}: {done.stderr.strip().splitlines()[-1]}")
    return int(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=CASES, metavar="NAME", default=list(CASES))
    parser.add_argument("--jobs", type=int, default=1, help="configurations at a time")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_models(folder, {str(CASES[name]["model"]) for name in options.only})
        recipes = {name: recipe_of(CASES[name], folder) for name in options.only}
        plans = {
            name: estimate_memory(config_of(r.model), r, Placement.of(r).compute_dtype)
            for name, r in recipes.items()
        }
        print(f"{'':32} {'planned':>9} {'measured':>9} {'ratio':>7}  parts, MB", flush=True)

        def one(number: int, name: str) -> dict[str, Any]:
            plan = plans[name]
            peak = measure(recipes[name], folder / f"{number}.yaml")
            row = {"case": name, "planned": plan.total, "measured": peak, "parts": plan.parts}
            parts = " ".join(f"{part} {size / 1e6:.0f}" for part, size in plan.parts.items())
            sizes = f"{plan.total / 1e6:9.0f} {peak / 1e6:9.0f} {plan.total / peak:7.3f}"
            print(f"{name:32} {sizes}  {parts}", flush=True)
            return row

        with ThreadPoolExecutor(options.jobs) as pool:
            rows = list(pool.map(one, range(len(recipes)), recipes))
    off = [row["case"] for row in rows if abs(row["planned"] / row["measured"] - 1) > 0.1]
    print(f"{len(rows) - len(off)} of {len(rows)} within 10 %")
    if options.json:
        content = {"environment": environment(), "rows": rows}
        options.json.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    if off:
        raise SystemExit(f"off by more than 10 %: {', '.join(off)}")


if __name__ == "__main__":
    main()
