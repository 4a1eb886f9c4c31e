"""Small runs that are really trained, for a step or a few."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from etude.tuning.config.recipe import Recipe
from etude.tuning.pipeline import tune
from etude.tuning.runs.folder import RunFolder


def endless(model: Path) -> Path:
    """Let a model with a head of its own never end an answer: its end tokens' logits are 0."""
    file = model / "model.safetensors"
    tensors = load_file(file)
    for token in AutoTokenizer.from_pretrained(model).all_special_ids:
        tensors["lm_head.weight"][token] = 0
    save_file(tensors, file, {"format": "pt"})
    return model


def train(model: Path, base: Path, name: str, **more: Any) -> RunFolder:
    """Return a finished run of one step in `base`; `more` are sections of its recipe."""
    rows = [
        {"prompt": f"open {n}", "completion": f"Close {n}.", "text": f"{w} {n}", "label": w}
        for n, w in enumerate(["good", "bad"] * 8)
    ]
    data = base.parent / "train.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    fields: dict[str, Any] = {
        "name": name,
        "model": {"id": str(model), "dtype": "float32"},
        # The adapter changes the answers after a single step.
        "adapter": {"rank": 2, "alpha": 64},
        "data": {"train": str(data), "eval_fraction": 0.3, "max_length": 64},
        "train": {
            "max_steps": 1,
            "lr": 0.05,
            "batch_samples": 4,
            "micro_tokens": 128,
            "threads": 1,
        },
        "eval": {"generate": 0, "max_new_tokens": 3},
    }
    return RunFolder(tune(Recipe.parse({**fields, **more}), base=base).folder)
