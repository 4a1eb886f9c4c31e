"""`etude adapters`: saved adapters are shown and added up, faults are one line."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from etude.cli import app
from etude.core.errors import EtudeError
from etude.tuning.adapters.inject import add_adapter
from etude.tuning.adapters.save import save_adapter
from etude.tuning.config.sections.adapter import AdapterSpec, FactorSpec
from etude.tuning.models.load import ModelOrigin

ORIGIN = ModelOrigin("some/model", "somewhere", "ab" * 32)


@pytest.fixture
def adapters(tiny_llama, tmp_path):
    for number, name in enumerate(("one", "two")):
        model = AutoModelForCausalLM.from_pretrained(tiny_llama())
        bits = 4 if number else None
        spec = AdapterSpec(rank=2 + number, factors=FactorSpec(bits=bits))
        add_adapter(model, spec, seed=number)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.1)
        save_adapter(model, tmp_path / name, spec, ORIGIN)
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(app, ["adapters", *map(str, arguments)])


def test_an_adapter_is_shown_with_what_it_was_trained_on(adapters):
    shown = run("show", adapters / "two").output
    for words in ("lora", "some/model", "abababababab", "4 bits", "14"):
        assert words in shown


def test_a_sum_is_written_with_the_ranks_of_its_parts(adapters):
    one, two = adapters / "one", adapters / "two"
    result = run("combine", f"{one}:0.5", f"{two}:-1", "-o", adapters / "sum")
    assert "rank 5" in result.output
    config = json.loads((adapters / "sum" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (5, 5)
    run("combine", f"{one}:0.5", f"{two}:1", "-o", adapters / "small", "--method", "svd")
    assert json.loads((adapters / "small" / "adapter_config.json").read_text())["r"] == 3


@pytest.mark.parametrize(
    ("part", "words"),
    [("one", "has no weight"), ("one:much", "has no weight"), ("nowhere:1", "nowhere")],
)
def test_a_part_that_cannot_be_used_is_named(adapters, part, words):
    result = run("combine", f"{adapters}/{part}", "-o", adapters / "sum")
    assert isinstance(result.exception, EtudeError)
    assert words in str(result.exception)
    assert not (adapters / "sum").exists()
