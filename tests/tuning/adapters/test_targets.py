"""Targets: PEFT's meaning of names, and no entry that silently finds nothing."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from etude.core.errors import NoTargetMatchedError
from etude.tuning.adapters.targets import find_targets
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.quant import build


@pytest.fixture(scope="module")
def folder(tiny_llama):
    return tiny_llama(layers=2)


@pytest.fixture(scope="module")
def model(folder):
    return AutoModelForCausalLM.from_pretrained(folder)


@pytest.mark.parametrize(
    "targets",
    [
        "all-linear",
        ["q_proj"],
        ["q_proj", "down_proj"],
        ["self_attn.k_proj"],
        ["model.layers.1.mlp.up_proj"],
        ["lm_head"],
    ],
)
def test_names_mean_the_modules_that_peft_takes(folder, model, targets):
    theirs = get_peft_model(
        AutoModelForCausalLM.from_pretrained(folder),
        LoraConfig(r=2, target_modules=targets, task_type="CAUSAL_LM"),
    )
    assert set(find_targets(model, targets)) == set(theirs.base_model.targeted_module_names)


def test_patterns_are_matched_against_the_whole_path(model):
    assert find_targets(model, "*.1.mlp.*") == [
        f"model.layers.1.mlp.{name}" for name in ("gate_proj", "up_proj", "down_proj")
    ]
    assert find_targets(model, ["*.[qk]_proj"]) == [
        f"model.layers.{layer}.self_attn.{name}"
        for layer in (0, 1)
        for name in ("q_proj", "k_proj")
    ]


def test_entries_add_up_in_the_models_order_without_repeats(model):
    found = find_targets(model, ["lm_head", "*.0.self_attn.v_proj", "v_proj"])
    assert found == [*(f"model.layers.{i}.self_attn.v_proj" for i in (0, 1)), "lm_head"]
    assert find_targets(model, ["all-linear", "lm_head"])[-1] == "lm_head"


def test_quantised_layers_are_found_like_dense_ones(folder):
    model = AutoModelForCausalLM.from_pretrained(folder)
    before = find_targets(model, "all-linear")
    name = before[3]
    weight = model.get_submodule(name).weight
    model.set_submodule(name, build.quantized(weight, QuantSpec(), torch.float32))
    assert find_targets(model, "all-linear") == before


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["q_proj", "vproj_TYPO"], r"'vproj_TYPO' matches no module \(nearest: .*v_proj"),
        ("qproj", r"nearest: q_proj"),
        ("all_linear", r"nearest: .*all-linear"),
        ("proj", r"the model has embed_tokens \(1\), q_proj \(2\), k_proj \(2\).*lm_head \(1\)"),
        (["*.mlp.*", "*.moe.*"], r"'\*\.moe\.\*' matches no module"),
        ("input_layernorm", r"'.*', a LlamaRMSNorm, but adapters support Linear, Embedding"),
        ("mlp", r"'model.layers.0.mlp', a LlamaMLP"),
        ("", "matches no module"),
        ([], "empty"),
    ],
)
def test_an_entry_that_finds_nothing_is_an_error_with_what_exists(model, targets, message):
    with pytest.raises(NoTargetMatchedError, match=message) as caught:
        find_targets(model, targets)
    assert "\n" not in str(caught.value)


def test_a_model_without_linear_layers_says_so():
    with pytest.raises(NoTargetMatchedError, match="no Linear, Embedding"):
        find_targets(torch.nn.Sequential(torch.nn.ReLU()), "all-linear")
