"""A whole small run: a tiny Llama, rows on disk, a recipe that takes a second."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

# The module beside the tests can be imported by its name.
sys.path.insert(0, str(Path(__file__).parent))

WORDS = ("add", "sub", "mul", "div", "read", "write", "open", "close")
WORDS += ("sort", "find", "list", "map", "key", "value", "node", "edge")


def write_rows(path: Path, count: int = 48) -> Path:
    """Write prompt and completion rows of varying length, all different."""
    rows = [
        {
            "prompt": f"def {WORDS[i % 16]}_{WORDS[i * 7 % 16]}({', '.join(WORDS[: 1 + i % 9])}):",
            "completion": f"{WORDS[i % 16].title()} the {WORDS[(i * 5) % 16]} number {i}.",
        }
        for i in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture
def tiny_recipe(tiny_recipe_in, tmp_path) -> Callable[..., dict[str, Any]]:
    """A factory of recipe fields for a run that takes about a second; sections are merged."""
    return tiny_recipe_in(tmp_path)


@pytest.fixture(scope="session")
def tiny_recipe_in(tiny_llama) -> Callable[[Path], Callable[..., dict[str, Any]]]:
    """`tiny_recipe` with its data in the folder given, for fixtures that outlive a test."""

    def within(folder: Path) -> Callable[..., dict[str, Any]]:
        return partial(_fields, tiny_llama(layers=2), write_rows(folder / "rows.jsonl"))

    return within


def _fields(model: Path, data: Path, /, **sections: dict[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "name": "tiny",
        "model": {"id": str(model), "dtype": "float32"},
        "adapter": {"rank": 4, "alpha": 8},
        "quant": {"kind": "none"},
        "data": {"train": str(data), "eval_fraction": 0.2, "max_length": 256},
        "train": {
            "epochs": 2,
            "batch_samples": 4,
            "micro_tokens": 128,
            "lr": 1e-2,
            "save_every": 3,
            "threads": 1,
        },
        "eval": {"generate": 2, "max_new_tokens": 4},
    }
    for name, section in sections.items():
        merged = {**fields.get(name, {}), **section} if isinstance(section, dict) else section
        fields[name] = merged
    return fields
