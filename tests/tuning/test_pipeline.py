"""Whole runs of a tiny model: they learn, stop, resume, refuse, and say why."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from etude.core.errors import DataError, DivergedError, RecipeError, RunError
from etude.core.machine import this_machine
from etude.tuning.callbacks import Callback
from etude.tuning.config.recipe import Recipe
from etude.tuning.pipeline import tune
from etude.tuning.runs.folder import RunFolder

pytestmark = pytest.mark.integration


def _losses(folder):
    return [r["loss"] for r in RunFolder.open(folder).read_metrics() if "loss" in r]


def _run(tiny_recipe, tmp_path, name="runs", **sections):
    return tune(Recipe.parse(tiny_recipe(**sections)), base=tmp_path / name)


@pytest.mark.parametrize("quant", ["none", "nf4", "fp4", "int4", "int8"])
def test_a_run_learns_and_leaves_everything_behind(tiny_recipe, tmp_path, quant):
    run = _run(tiny_recipe, tmp_path, quant={"kind": quant}, train={"epochs": 6})
    assert run.state == "finished"
    assert run.summary["eval_loss"] < 0.8 * run.summary["eval_loss_before"]
    names = {path.name for path in run.folder.iterdir()}
    assert names >= {
        "recipe.yaml",
        "environment.json",
        "metrics.jsonl",
        "data.json",
        "adapter",
        "checkpoints",
        "samples.jsonl",
        "summary.json",
        "report.html",
    }
    assert Recipe.read(run.folder / "recipe.yaml") == Recipe.parse(
        tiny_recipe(quant={"kind": quant}, train={"epochs": 6})
    )
    record = RunFolder.open(run.folder).read_metrics()[0]
    assert record.keys() >= {"step", "tokens", "loss", "lr", "grad_norm", "tokens_per_s", "rss"}


@pytest.mark.parametrize(
    ("dtype", "native", "told"),
    [("bfloat16", False, 1), ("bfloat16", True, 0), ("auto", False, 0), ("float32", False, 0)],
)
def test_bfloat16_where_the_processor_has_none_is_said_to_be_slow(
    tiny_recipe, tmp_path, monkeypatch, dtype, native, told
):
    if torch.cuda.is_available():
        pytest.skip("with a GPU, the GPU decides")
    sets = ("avx2", "avx512_bf16") if native else ("avx2",)
    other = replace(this_machine(), instruction_sets=sets)
    monkeypatch.setattr("etude.tuning.placement.this_machine", lambda: other)
    lines: list[str] = []
    view = Callback()
    monkeypatch.setattr(view, "on_message", lines.append)
    recipe = tiny_recipe(train={"max_steps": 1})
    recipe["model"]["dtype"] = dtype
    tune(Recipe.parse(recipe), base=tmp_path, callbacks=[view])
    assert len([line for line in lines if "emulates bfloat16" in line]) == told


def test_full_fine_tuning_trains_every_weight_and_saves_a_model(tiny_recipe, tmp_path):
    from transformers import AutoModelForCausalLM

    run = _run(tiny_recipe, tmp_path, adapter={"kind": "full"}, train={"lr": 1e-3, "epochs": 4})
    before = AutoModelForCausalLM.from_pretrained(tiny_recipe()["model"]["id"])
    after = AutoModelForCausalLM.from_pretrained(run.folder / "model")
    changed = [
        name
        for (name, a), b in zip(before.named_parameters(), after.parameters(), strict=True)
        if not torch.equal(a, b)
    ]
    assert len(changed) == len(list(before.parameters()))
    assert run.summary["trainable_share"] == 1.0
    assert run.summary["eval_loss"] < run.summary["eval_loss_before"]


def test_one_micro_batch_or_many_give_the_same_curve(tiny_recipe, tmp_path):
    whole = _run(tiny_recipe, tmp_path, "a", train={"micro_tokens": 4096})
    split = _run(tiny_recipe, tmp_path, "b", train={"micro_tokens": 16})
    # float32 sums in another order: relative 1e-6 a step, growing over 20 steps of AdamW.
    assert _losses(split.folder) == pytest.approx(_losses(whole.folder), rel=2e-4)


def test_packed_and_padded_rows_give_the_same_curve(tiny_recipe, tmp_path):
    packed = _run(tiny_recipe, tmp_path, "a")
    padded = _run(tiny_recipe, tmp_path, "b", data={"packing": False})
    assert _losses(padded.folder) == pytest.approx(_losses(packed.folder), rel=2e-4)


def test_recomputing_activations_changes_no_loss(tiny_recipe, tmp_path):
    plain = _run(tiny_recipe, tmp_path, "a")
    recomputed = _run(tiny_recipe, tmp_path, "b", train={"gradient_checkpointing": True})
    assert _losses(recomputed.folder) == _losses(plain.folder)


def test_dropout_is_repeated_by_the_seed_and_changed_by_another(tiny_recipe, tmp_path):
    first = _run(tiny_recipe, tmp_path, "a", adapter={"dropout": 0.3})
    again = _run(tiny_recipe, tmp_path, "b", adapter={"dropout": 0.3})
    other = _run(tiny_recipe, tmp_path, "c", adapter={"dropout": 0.3}, train={"seed": 1})
    assert _losses(first.folder) == _losses(again.folder)
    assert _losses(first.folder) != _losses(other.folder)


# Stopping, killing, resuming


def _start(tiny_recipe, tmp_path, name, **sections):
    """Start `etude tune` in a process of its own; return it and the base of its runs."""
    recipe = tmp_path / f"{name}.yaml"
    recipe.write_text(yaml.safe_dump(tiny_recipe(**sections)), "utf-8")
    base = tmp_path / name
    process = subprocess.Popen(
        [sys.executable, "-m", "etude", "tune", str(recipe), "--runs", str(base), "--quiet"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    return process, base


def _wait_for_step(process, base, step, limit=120.0):
    """Wait until the run has recorded `step`; return its folder."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        for metrics in base.glob("tiny-*/metrics.jsonl"):
            if len(_losses(metrics.parent)) >= step:
                return metrics.parent
        if process.poll() is not None:
            raise AssertionError(f"the run ended early: {process.stderr.read()}")
        time.sleep(0.01)
    raise AssertionError("the run did not get there in time")


LONG = {"train": {"epochs": 15}, "quant": {"kind": "nf4"}, "adapter": {"dropout": 0.1}}


@pytest.fixture(scope="module")
def undisturbed(tiny_recipe_in, tmp_path_factory):
    """The run that nobody ends, on the same weights and rows."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return _run(tiny_recipe_in(folder), folder, **LONG)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_that_was_ended_in_the_middle_repeats_the_loss_curve(
    tiny_recipe, tmp_path, undisturbed, how
):
    process, base = _start(tiny_recipe, tmp_path, "ended", **LONG)
    folder = _wait_for_step(process, base, 10)
    process.send_signal(how)
    _, told = process.communicate(timeout=60)
    assert len(_losses(folder)) < 100
    if how == signal.SIGKILL:
        assert RunFolder.open(folder).state == "killed"
    else:
        assert process.returncode == 130
        assert f"etude tune --resume {folder}" in told
        assert RunFolder.open(folder).state == "stopped"

    resumed = tune(Recipe.read(folder / "recipe.yaml"), resume=RunFolder.open(folder))
    assert _losses(resumed.folder) == _losses(undisturbed.folder)
    assert resumed.summary["eval_loss"] == undisturbed.summary["eval_loss"]


def test_killing_again_and_again_changes_nothing(tiny_recipe, tmp_path, undisturbed):
    process, base = _start(tiny_recipe, tmp_path, "ended", **LONG)
    folder = _wait_for_step(process, base, 5)
    for _ in range(3):
        process.kill()
        process.wait()
        done = len(_losses(folder))
        process = subprocess.Popen(
            [sys.executable, "-m", "etude", "tune", "--resume", str(folder), "--quiet"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        _wait_for_step(process, base, done + 4)
    process.kill()
    process.wait()
    resumed = tune(Recipe.read(folder / "recipe.yaml"), resume=RunFolder.open(folder))
    assert _losses(resumed.folder) == _losses(undisturbed.folder)


def test_a_run_being_written_by_another_process_is_refused(tiny_recipe, tmp_path):
    process, base = _start(tiny_recipe, tmp_path, "busy", **LONG)
    try:
        folder = _wait_for_step(process, base, 2)
        with pytest.raises(RunError, match=f"being written by process {process.pid}"):
            tune(Recipe.read(folder / "recipe.yaml"), resume=RunFolder.open(folder))
    finally:
        process.kill()
        process.wait()


def test_resuming_with_other_data_is_refused(tiny_recipe, tmp_path):
    run = _run(tiny_recipe, tmp_path)
    recipe = Recipe.read(run.folder / "recipe.yaml")
    data = Path(recipe.data.train)
    data.write_text(data.read_text().replace("number 1", "count 1"), "utf-8")
    with pytest.raises(RunError, match="training data differ from those this run began with"):
        tune(recipe, resume=RunFolder.open(run.folder))


def test_a_full_disk_stops_the_run_and_keeps_the_last_checkpoint(tiny_recipe, tmp_path):
    # A limit on the size of files is what a full disk is to a process: the kernel refuses the
    # write. Checkpoints of rank 16 are beyond it, records and checkpoints of rank 1 are not.
    limit = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000)); "
    recipe = tmp_path / "r.yaml"
    recipe.write_text(yaml.safe_dump(tiny_recipe(adapter={"rank": 16})), "utf-8")
    code = limit + "import sys; from etude.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "tune", str(recipe), "--runs", str(tmp_path / "full"), "-q"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert "cannot save" in done.stderr
    (folder,) = (tmp_path / "full").glob("tiny-*")
    assert RunFolder.open(folder).state == "failed"
    assert not list((folder / "checkpoints").iterdir())
    resumed = tune(Recipe.read(folder / "recipe.yaml"), resume=RunFolder.open(folder))
    assert resumed.state == "finished"


# Ends


def test_a_loss_that_is_not_finite_keeps_the_last_good_state_and_names_the_batch(
    tiny_recipe, tmp_path
):
    recipe = Recipe.parse(
        tiny_recipe(train={"lr": 1e30, "max_grad_norm": None, "warmup_ratio": 0.0})
    )
    with pytest.raises(DivergedError, match=r"rows\.jsonl:\d+.*Lower train\.lr"):
        tune(recipe, base=tmp_path / "runs")
    (folder,) = (tmp_path / "runs").glob("tiny-*")
    assert RunFolder.open(folder).state == "diverged"
    assert all(abs(loss) < 1e6 for loss in _losses(folder)[:1])


def test_early_stopping_keeps_the_weights_of_the_best_evaluation(tiny_recipe, tmp_path):
    run = _run(
        tiny_recipe,
        tmp_path,
        train={
            "epochs": 60,
            "eval_every": 5,
            "patience": 2,
            "lr": 5e-2,
            "lr_scheduler": "constant",
        },
    )
    evaluations = [
        (r["step"], r["eval_loss"])
        for r in RunFolder.open(run.folder).read_metrics()
        if "eval_loss" in r
    ]
    best_step, best = min(evaluations, key=lambda pair: pair[1])
    assert run.summary["steps"] < 60 * 10
    assert evaluations[-1][0] == best_step + 10
    assert run.summary["eval_loss"] == pytest.approx(best, rel=1e-6)
    assert f"weights of step {best_step}" in run.summary["ended"]


def test_a_time_limit_ends_the_schedule_early_and_smoothly(tiny_recipe, tmp_path):
    run = _run(tiny_recipe, tmp_path, train={"epochs": 5000, "max_minutes": 0.05})
    records = [r for r in RunFolder.open(run.folder).read_metrics() if "lr" in r]
    assert run.summary["steps"] < 5000 * 10
    assert records[-1]["total_steps"] == pytest.approx(records[-1]["step"], rel=0.5)


# Refusals


@pytest.mark.parametrize(
    ("sections", "error", "words"),
    [
        ({"adapter": {"rnak": 3}}, RecipeError, r"adapter\.rnak.*did you mean 'adapter\.rank'"),
        ({"adapter": {"rank": "eight"}}, RecipeError, r"adapter\.rank.*'eight'"),
        ({"adapter": {"kind": "full"}, "quant": {"kind": "nf4"}}, RecipeError, "quantised base"),
        ({"data": {"train": "absent.jsonl"}}, DataError, r"absent\.jsonl"),
        ({"train": {"patience": 2}}, RecipeError, "eval_every"),
    ],
)
def test_a_recipe_that_cannot_run_is_refused_by_name(tiny_recipe, tmp_path, sections, error, words):
    with pytest.raises(error, match=words):
        _run(tiny_recipe, tmp_path, **sections)


def test_samples_longer_than_the_models_context_are_left_out_and_counted(tiny_recipe, tmp_path):
    data = tmp_path / "long.jsonl"
    data.write_text(
        "".join(
            json.dumps({"prompt": f"{i} " + "word " * 600, "completion": "yes"}) + "\n"
            for i in range(8)
        )
    )
    with pytest.raises(DataError, match=r"longer than data\.max_length: \d \("):
        _run(tiny_recipe, tmp_path, data={"train": str(data), "max_length": 4000})


@pytest.mark.parametrize(
    "adapter",
    [
        {"kind": "dora"},
        {"kind": "vera", "rank": 16},
        {"kind": "adalora", "adalora": {"warmup": 0.1, "settle": 0.2}},
        {"kind": "ia3"},
        {"init": "pissa"},
        {"init": "loftq", "loftq_iterations": 3},
        {"factors": {"bits": 4, "when": "training"}},
        {"factors": {"bits": 8, "when": "after"}},
        {"rslora": True, "rank_pattern": {"*.mlp.*": 2}, "modules_to_save": ["norm"]},
    ],
    ids=str,
)
def test_every_kind_of_adapter_trains_and_answers_from_its_folder(tiny_recipe, tmp_path, adapter):
    from etude.tuning.evaluation import evaluate_run

    lr = {"vera": 0.2, "adalora": 0.1, "ia3": 0.1}.get(adapter.get("kind"), 0.02)
    run = _run(
        tiny_recipe,
        tmp_path,
        adapter=adapter,
        quant={"kind": "nf4"},
        train={"epochs": 6, "lr": lr},
    )
    assert run.summary["eval_loss"] < 0.95 * run.summary["eval_loss_before"]
    again = evaluate_run(RunFolder.open(run.folder), base=True)
    # The same weights, read back; AdaLoRA's are multiplied out and pruned in between.
    assert again["tuned"]["loss"] == pytest.approx(run.summary["eval_loss"], rel=1e-6)
    if adapter.get("init", "default") == "default":
        before = run.summary["eval_loss_before"]
        assert again["base"]["loss"] == pytest.approx(before, rel=1e-6)


@pytest.mark.parametrize("kind", ["adalora", "ia3"])
def test_a_stopped_run_goes_on_to_the_same_losses_and_bytes(tiny_recipe, tmp_path, kind):
    sections = {"adapter": {"kind": kind}, "train": {"epochs": 4, "lr": 0.05}}
    whole = _run(tiny_recipe, tmp_path, "whole", **sections)
    recipe = Recipe.parse(tiny_recipe(**sections))
    half = recipe.model_copy(update={"train": recipe.train.model_copy(update={"save_every": 3})})
    run = tune(half, base=tmp_path / "half")
    folder = RunFolder.open(run.folder)
    for checkpoint in sorted(folder.checkpoints.glob("step-*.pt"))[1:]:
        checkpoint.unlink()
    folder.set_state("stopped", "as if killed")
    tune(half, base=tmp_path / "half", resume=RunFolder.open(run.folder))
    assert _losses(run.folder) == _losses(whole.folder)
    files = [f / "adapter" / "adapter_model.safetensors" for f in (run.folder, whole.folder)]
    assert files[0].read_bytes() == files[1].read_bytes()
