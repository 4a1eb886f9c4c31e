"""Whole runs by every optimiser: killed and resumed, pruned, refused."""

from __future__ import annotations

import math
import subprocess
import sys
import time

import pytest
import yaml
from safetensors.torch import load_file
from stepping import IDS, OPTIMIZERS

from etude.core.errors import RecipeError
from etude.tuning.config.recipe import Recipe
from etude.tuning.pipeline import tune
from etude.tuning.runs.folder import RunFolder

pytestmark = pytest.mark.integration


def _losses(folder):
    return [r["loss"] for r in RunFolder.open(folder).read_metrics() if "loss" in r]


def _full(fields):
    return {
        "adapter": {"kind": "full"},
        "train": {"epochs": 8, "weight_decay": 0.01, "lr": 3e-3, **fields},
        "eval": {"generate": 0},
    }


@pytest.mark.parametrize("fields", OPTIMIZERS[1:], ids=IDS[1:])
def test_a_killed_run_repeats_the_loss_curve(tiny_recipe, tmp_path, fields):
    sections = _full(fields)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(tiny_recipe(**sections)), "utf-8")
    process = subprocess.Popen(
        [sys.executable, "-m", "etude", "tune", str(recipe), "--runs", str(tmp_path / "a"), "-q"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    folder, end = None, time.monotonic() + 120
    while time.monotonic() < end and folder is None:
        assert process.poll() is None, process.stderr.read()
        for metrics in (tmp_path / "a").glob("tiny-*/metrics.jsonl"):
            folder = metrics.parent if len(_losses(metrics.parent)) >= 8 else None
        time.sleep(0.01)
    process.kill()
    process.communicate()
    done = len(_losses(folder))
    resumed = tune(Recipe.read(folder / "recipe.yaml"), resume=RunFolder.open(folder))
    whole = tune(Recipe.parse(tiny_recipe(**sections)), base=tmp_path / "b")
    assert done < len(_losses(whole.folder))
    assert _losses(resumed.folder) == _losses(whole.folder)
    assert resumed.summary["eval_loss"] == whole.summary["eval_loss"]
    assert whole.summary["eval_loss"] < 0.9 * whole.summary["eval_loss_before"]


def test_paging_changes_no_loss_and_8_bits_hardly_any(tiny_recipe, tmp_path):
    def run(name, **fields):
        return tune(Recipe.parse(tiny_recipe(**_full(fields))), base=tmp_path / name)

    plain, paged = run("a"), run("b", paged=True)
    small, small_paged = (
        run("c", optimizer="adamw8bit"),
        run("d", optimizer="adamw8bit", paged=True),
    )
    assert _losses(plain.folder) == _losses(paged.folder)
    assert _losses(small.folder) == _losses(small_paged.folder)
    assert small.summary["eval_loss"] == pytest.approx(plain.summary["eval_loss"], rel=0.02)
    for summary, name, is_paged in (
        (plain.summary, "adamw", False),
        (paged.summary, "adamw", True),
        (small.summary, "adamw8bit", False),
        (small_paged.summary, "adamw8bit", True),
    ):
        assert (summary["optimizer"], summary["optimizer_paged"]) == (name, is_paged)
    parameters = plain.summary["trainable_parameters"]
    assert plain.summary["optimizer_bytes"] == pytest.approx(8 * parameters, rel=0.01)
    assert small.summary["optimizer_bytes"] < 0.4 * plain.summary["optimizer_bytes"]


def test_lora_plus_changes_the_run_and_the_rate_in_the_metrics_stays_the_common_one(
    tiny_recipe, tmp_path
):
    one = tune(Recipe.parse(tiny_recipe()), base=tmp_path / "a")
    plus = tune(Recipe.parse(tiny_recipe(train={"loraplus_lr_ratio": 8})), base=tmp_path / "b")
    rates = [
        [r["lr"] for r in RunFolder.open(run.folder).read_metrics() if "lr" in r]
        for run in (one, plus)
    ]
    assert rates[0] == rates[1]
    assert _losses(one.folder)[0] == _losses(plus.folder)[0]
    assert _losses(one.folder)[2:] != _losses(plus.folder)[2:]


def test_adalora_is_pruned_whatever_the_optimiser(tiny_recipe, tmp_path):
    sections = {"adapter": {"kind": "adalora"}, "eval": {"generate": 0}}
    for fields in OPTIMIZERS[3:]:
        train = {"epochs": 4, "lr": 0.05, **fields}
        name = f"{fields['optimizer']}"
        run = tune(Recipe.parse(tiny_recipe(**sections, train=train)), base=tmp_path / name)
        assert math.isfinite(run.summary["eval_loss"])
        saved = load_file(run.folder / "adapter" / "adapter_model.safetensors")
        ranks = [len(tensor) for name, tensor in saved.items() if "lora_A" in name]
        # Each of the modules began with 6 ranks, the adapter's 4 and a half more.
        assert sum(ranks) <= 4 * len(run.summary["adapted_modules"])


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"train": {"optimizer": "lion", "paged": True}}, r"train\.paged.*lion"),
        ({"train": {"optimizer": "adafactor", "paged": True}}, r"train\.paged.*adafactor"),
        ({"train": {"optimizer": "adafactor", "beta2": 0.99}}, "beta2 does not apply"),
        (
            {"train": {"loraplus_lr_ratio": 4}, "adapter": {"kind": "vera"}},
            r"loraplus_lr_ratio.*vera",
        ),
        ({"train": {"optimizer": "sgd"}}, r"train\.optimizer.*'sgd'"),
    ],
)
def test_what_does_not_go_together_is_refused(tiny_recipe, sections, words):
    with pytest.raises(RecipeError, match=words) as caught:
        Recipe.parse(tiny_recipe(**sections))
    assert "\n" not in str(caught.value)


def test_full_fine_tuning_beside_lora_plus_leaves_the_ratio_out(tiny_recipe):
    recipe = Recipe.parse(tiny_recipe(train={"loraplus_lr_ratio": 4}))
    full = recipe.with_method("full")
    assert Recipe.parse(yaml.safe_load(full.to_yaml())).train.loraplus_lr_ratio == 1
