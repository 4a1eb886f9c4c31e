"""`etude merge`: a run or an adapter's folder becomes a model folder."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import pytest
import torch
from transformers import AutoModelForCausalLM

from etude.cli import main
from etude.tuning.adapters.inject import add_adapter
from etude.tuning.adapters.multi_adapter import adapter_parameters
from etude.tuning.adapters.save import save_adapter
from etude.tuning.config.recipe import Recipe
from etude.tuning.models.load import load_model
from etude.tuning.runs.folder import RunFolder


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


@pytest.fixture
def etude(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)

    def run(*arguments) -> Done:
        monkeypatch.setattr(sys, "argv", ["etude", "merge", *map(str, arguments)])
        capsys.readouterr()  # what fixtures printed
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return run


@pytest.fixture
def run(tiny_llama, tmp_path) -> RunFolder:
    """A run's folder with an adapter on a 4-bit base in it."""
    model = tiny_llama()
    recipe = Recipe.parse(
        {
            "model": {"id": str(model), "dtype": "float32"},
            "adapter": {"rank": 4},
            "data": {"train": "none.jsonl"},
        }
    )
    folder = RunFolder.create("small", tmp_path / "runs")
    folder.recipe.write_text(recipe.to_yaml(), "utf-8")
    loaded = load_model(recipe.model, recipe.quant)
    add_adapter(loaded.model, recipe.adapter, seed=0)
    with torch.no_grad():
        for parameter in adapter_parameters(loaded.model).values():
            parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
    save_adapter(loaded.model, folder.adapter, recipe.adapter, loaded.origin)
    return folder


def test_a_run_and_its_adapters_folder_give_the_same_model(etude, run, tmp_path):
    done = etude("latest", "--output", "one", "--dtype", "float32")
    assert (done.code, done.err) == (0, "")
    assert "14 layers merged into the dequantized base, float32" in done.out
    assert "logits differ from base and adapter by at most" in done.out
    assert etude(run.adapter, "-o", "two", "--dtype", "float32").code == 0
    one, two = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "one").dtype == torch.float32


def test_a_pefts_folder_without_a_base_wants_one_named(etude, run):
    (run.adapter / "etude.json").unlink()
    config = run.adapter / "adapter_config.json"
    named = config.read_text()
    config.write_text(named.replace("base_model_name_or_path", "auto_mapping"))
    done = etude(run.adapter, "-o", "merged")
    assert done.code == 2
    assert "name it with --model" in done.err
    config.write_text(named)
    assert etude(run.adapter, "-o", "merged", "--dtype", "float32").code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("latest", "-o", "m", "--dtype", "nf4"), "times what the adapter does"),
        (("nowhere", "-o", "m"), "no run 'nowhere'"),
        (("latest", "-o", "runs"), "already exists"),
        (("latest", "-o", "m", "--model", "no/such/model"), "no/such/model"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(etude, run, tmp_path, arguments, message):
    done = etude(*arguments)
    assert done.code == 2
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert message in done.err
    assert not (tmp_path / "m").exists()
