"""IA³ against PEFT's, number for number, and what it refuses."""

from __future__ import annotations

import json

import pytest
import torch
from peft import IA3Config, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from small_models import ORIGIN, logits
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from etude.core.errors import AdapterError, NoTargetMatchedError
from etude.tuning.adapters.combine import combine_adapters
from etude.tuning.adapters.inject import add_adapter
from etude.tuning.adapters.merge import merge_layers
from etude.tuning.adapters.multi_adapter import (
    adapted_layers,
    adapter_parameters,
    adapter_rows,
    set_adapter,
)
from etude.tuning.adapters.save import load_adapter, save_adapter
from etude.tuning.adapters.saved_parts import CONFIG, WEIGHTS
from etude.tuning.config.sections.adapter import AdapterSpec, Ia3Spec

SPEC = AdapterSpec(kind="ia3", target_modules=["k_proj", "v_proj", "down_proj"])


def scatter(model, seed=0, name="default"):
    """Move every vector off one, as training would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapter_parameters(model, name).values():
            parameter.copy_(1 + 0.3 * torch.randn(parameter.shape, generator=generator))


@pytest.fixture(scope="module")
def llama(tiny_llama):
    """A folder of a Llama whose projections have biases, as Qwen2's have."""
    folder = tiny_llama(tie_word_embeddings=False, attention_bias=True, mlp_bias=True)
    weights = load_file(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(5)
    for name, value in weights.items():
        if name.endswith(".bias"):
            value.copy_(0.1 * torch.randn(value.shape, generator=generator))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    """A folder of a GPT-2, whose projections store their weights transposed."""
    folder = tmp_path_factory.mktemp("gpt2")
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=64, n_positions=64, n_embd=16, n_layer=2, n_head=2, initializer_range=0.2
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def base(folder):
    return AutoModelForCausalLM.from_pretrained(folder).eval()


def close(one, other):
    torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("which", "targets", "feedforward"),
    [
        ("llama", ["k_proj", "v_proj", "down_proj"], ["down_proj"]),
        ("llama", ["q_proj", "up_proj"], []),
        ("gpt2", ["c_attn", "mlp.c_proj"], ["mlp.c_proj"]),
    ],
)
def test_pefts_vectors_are_read_and_written_back_as_the_same_numbers(
    request, tmp_path, which, targets, feedforward
):
    folder = request.getfixturevalue(which)
    config = IA3Config(target_modules=targets, feedforward_modules=feedforward)
    theirs = get_peft_model(base(folder), config).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "ia3_l" in name:
                parameter.copy_(1 + 0.3 * torch.randn(parameter.shape, generator=generator))
    expected = logits(theirs)
    assert float((expected - logits(base(folder))).abs().max()) > 0.05
    theirs.save_pretrained(tmp_path / "theirs")
    model = base(folder)
    load_adapter(model, tmp_path / "theirs")
    close(logits(model), expected)
    spec = AdapterSpec(kind="ia3", target_modules=targets, ia3=Ia3Spec(feedforward=feedforward))
    save_adapter(model, tmp_path / "ours", spec, ORIGIN)
    one, two = (load_file(tmp_path / name / WEIGHTS) for name in ("theirs", "ours"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)
    written = json.loads((tmp_path / "ours" / CONFIG).read_text())
    # Last names where they are enough; GPT-2's attention has a c_proj, too.
    paths = [path for path in adapted_layers(model) if path.endswith(tuple(feedforward))]
    assert written["feedforward_modules"] == (feedforward if which == "llama" else paths)
    again = PeftModel.from_pretrained(base(folder), tmp_path / "ours").eval()
    assert torch.equal(logits(again), expected)


def test_the_gradient_is_pefts(llama):
    config = IA3Config(target_modules=SPEC.target_modules, feedforward_modules=["down_proj"])
    theirs = get_peft_model(base(llama), config)
    model = base(llama)
    add_adapter(model, SPEC, seed=0)
    scatter(model)
    with torch.no_grad():
        for name, value in adapter_parameters(model).items():
            theirs.get_parameter(f"base_model.model.{name}.default").copy_(value)
    ids = torch.arange(3, 40)[None]
    for one in (model, theirs):
        one(input_ids=ids).logits.square().mean().backward()
    for name, value in adapter_parameters(model).items():
        wanted = theirs.get_parameter(f"base_model.model.{name}.default").grad
        assert value.grad.abs().max() > 0
        torch.testing.assert_close(value.grad, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("which", ["llama", "gpt2"])
def test_the_merged_model_computes_the_same_biases_included(request, which):
    model = base(request.getfixturevalue(which))
    targets = "all-linear" if which == "gpt2" else SPEC.target_modules
    add_adapter(model, AdapterSpec(kind="ia3", target_modules=targets), seed=0)
    scatter(model)
    expected = logits(model)
    assert any(layer.bias_delta() is not None for layer in adapted_layers(model).values())
    merge_layers(model, torch.float32)
    assert not adapted_layers(model)
    torch.testing.assert_close(logits(model), expected, rtol=1e-5, atol=1e-5)


def test_beside_a_lora_both_changes_add_up_and_rows_have_their_own(llama):
    model = base(llama)
    targets = ["q_proj", "v_proj", "down_proj"]
    add_adapter(model, AdapterSpec(kind="ia3", target_modules=targets), seed=0, name="scales")
    scatter(model, name="scales")
    add_adapter(model, AdapterSpec(rank=2, target_modules=targets), seed=1, name="adds")
    scatter(model, seed=2, name="adds")
    ids = torch.arange(3, 27).view(4, 6)
    single = {None: logits_of(model, None, ids)}
    single |= {name: logits_of(model, name, ids) for name in ("scales", "adds")}
    rows = ["adds", None, "scales", "adds"]
    with adapter_rows(model, rows):
        mixed = logits(model, ids)
    for place, name in enumerate(rows):
        torch.testing.assert_close(mixed[place], single[name][place], rtol=1e-4, atol=1e-4)
    both = logits_of(model, ["scales", "adds"], ids)
    merge_layers(model, torch.float32)
    torch.testing.assert_close(logits(model, ids), both, rtol=1e-4, atol=1e-4)


def logits_of(model, name, ids):
    set_adapter(model, name)
    return logits(model, ids)


class Suffixes(nn.Module):
    """Two names one of which ends in the other, which PEFT's comparison of ends mistakes."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.proj = nn.Linear(6, 6)
        self.down_proj = nn.Linear(6, 6)

    def forward(self, x):
        return self.down_proj(self.proj(x).relu())


def test_names_that_end_in_each_other_are_kept_apart_in_pefts_file(tmp_path):
    inputs = Ia3Spec(feedforward=["proj"])
    spec = AdapterSpec(kind="ia3", target_modules=["proj", "down_proj"], ia3=inputs)
    model = Suffixes().eval()
    add_adapter(model, spec, seed=0)
    scatter(model)
    layers = adapted_layers(model)
    assert [layers[name].adapter.feedforward for name in ("proj", "down_proj")] == [True, False]
    x = torch.randn(3, 6)
    save_adapter(model, tmp_path, spec, ORIGIN)
    theirs = PeftModel.from_pretrained(Suffixes(), tmp_path).eval()
    close(theirs(x), model(x))
    again = Suffixes().eval()
    load_adapter(again, tmp_path)
    assert torch.equal(again(x), model(x))


def test_what_cannot_be_is_refused_by_name(llama, tmp_path):
    with pytest.raises(NoTargetMatchedError, match=r"ia3\.feedforward: 'down_porj'.*down_proj"):
        spec = SPEC.model_copy(update={"ia3": Ia3Spec(feedforward=["down_porj"])})
        add_adapter(base(llama), spec, seed=0)
    with pytest.raises(AdapterError, match=r"Linear layers only, and model\.embed_tokens"):
        add_adapter(base(llama), AdapterSpec(kind="ia3", target_modules=["embed_tokens"]), seed=0)
    for option in ({"dropout": 0.1}, {"rank_pattern": {"q_proj": 2}}, {"init": "pissa"}):
        with pytest.raises(ValueError, match=f"adapter.{next(iter(option))} is for adapter.kind"):
            AdapterSpec(kind="ia3", **option)
    model = base(llama)
    add_adapter(model, SPEC, seed=0)
    with pytest.raises(AdapterError, match="scales the base itself"):
        combine_adapters(model, {"default": 1.0}, "sum")
    save_adapter(model, tmp_path, SPEC, ORIGIN)
    config = json.loads((tmp_path / CONFIG).read_text())
    (tmp_path / CONFIG).write_text(json.dumps({**config, "feedforward_modules": ["v_proj"]}))
    with pytest.raises(AdapterError, match=r"ia3_l is .* but adapter_config\.json requires"):
        load_adapter(base(llama), tmp_path)
    (tmp_path / CONFIG).write_text(json.dumps({**config, "feedforward_modules": "("}))
    with pytest.raises(AdapterError, match="no regular expression"):
        load_adapter(base(llama), tmp_path)
