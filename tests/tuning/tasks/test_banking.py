"""BANKING77 runs whole: 77 classes, a few rows of each, on MiniLM's real weights."""

from __future__ import annotations

import json

import pytest

from etude.tuning.config.recipe import Recipe
from etude.tuning.pipeline import tune

pytestmark = pytest.mark.weights


def test_a_run_over_77_classes_with_few_rows(shared_data, tmp_path):
    from etude.tuning.models.pull import pull

    folder = shared_data / "topic" / "banking77"
    recipe = Recipe.parse(
        {
            "name": "banking",
            "task": "text-classification",
            "model": {"id": str(pull("minilm")), "dtype": "float32"},
            "quant": {"kind": "none"},
            "adapter": {"rank": 4, "alpha": 8},
            "data": {
                "train": str(folder / "train.csv"),
                "eval": str(folder / "test.csv"),
                "label": "category",
                "max_train": 154,
                "max_eval": 77,
                "max_length": 64,
                "too_long": "cut_prompt",
            },
            "train": {
                "epochs": 2,
                "batch_samples": 16,
                "micro_tokens": 1024,
                "lr": 2e-3,
                "sampling": "balanced",
                "threads": 1,
            },
            "objective": {"class_weights": "balanced"},
        }
    )
    run = tune(recipe, base=tmp_path / "runs")
    facts = json.loads((run.folder / "data.json").read_text("utf-8"))
    assert facts["totals"]["classes"].startswith("77, 1 to ")
    assert any("77 classes (column category)" in note for note in facts["notes"])
    details = json.loads((run.folder / "details.json").read_text("utf-8"))
    assert details["baselines"]["rows"][0]["name"] == "majority class"
    assert len(details["per_class"]["labels"]) == 77
    assert run.summary["eval_loss"] < run.summary["eval_loss_before"]
