"""The family of adapters against PEFT's: the same numbers, and each other's files."""

from __future__ import annotations

import pytest
import torch
from peft import AdaLoraConfig, LoraConfig, PeftModel, VeraConfig, get_peft_model
from small_models import ORIGIN, load_tiny, logits, randomize
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from etude.core.errors import AdapterError, NoTargetMatchedError
from etude.tuning.adapters.combine import combine_adapters, combine_folders
from etude.tuning.adapters.inject import add_adapter
from etude.tuning.adapters.multi_adapter import (
    adapted_layers,
    adapter_disabled,
    adapter_names,
    adapter_parameters,
    adapter_rows,
    adapters_named,
    delete_adapter,
    set_adapter,
)
from etude.tuning.adapters.save import load_adapter, save_adapter
from etude.tuning.config.sections.adapter import AdapterSpec, FactorSpec
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.export.peft import export_peft
from etude.tuning.models.load import ModelOrigin
from etude.tuning.models.unquantized import UnquantizedWeights
from etude.tuning.quant import build

FAMILY = {
    "rslora": AdapterSpec(rank=4, alpha=6, rslora=True),
    "dora": AdapterSpec(kind="dora", rank=4, alpha=6),
    "vera": AdapterSpec(kind="vera", rank=8, target_modules=["q_proj", "v_proj", "up_proj"]),
    "ia3": AdapterSpec(kind="ia3", target_modules=["k_proj", "v_proj", "down_proj"]),
    "patterns": AdapterSpec(
        rank=4, alpha=6, rank_pattern={"*.mlp.*": 8}, alpha_pattern={"q_proj": 3}
    ),
    "embedding": AdapterSpec(rank=4, alpha=6, target_modules=["embed_tokens", "q_proj"]),
    "dora embedding": AdapterSpec(kind="dora", rank=4, alpha=6, target_modules=["embed_tokens"]),
    "head trained": AdapterSpec(
        rank=4, alpha=6, target_modules=["q_proj"], modules_to_save=["norm"]
    ),
}


@pytest.fixture(scope="module")
def folder(tiny_llama):
    return tiny_llama(tie_word_embeddings=False)


def base(folder):
    return AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.mark.parametrize("name", FAMILY)
def test_peft_computes_what_etude_saves_and_the_other_way_round(folder, tmp_path, name):
    spec = FAMILY[name]
    model = base(folder)
    add_adapter(model, spec, seed=0)
    randomize(model)
    ours = logits(model)
    save_adapter(model, tmp_path / "ours", spec, ORIGIN)
    theirs = PeftModel.from_pretrained(base(folder), tmp_path / "ours").eval()
    # Sums of float32 in another order, through two layers.
    assert float((logits(theirs) - ours).abs().max()) <= 2e-5
    assert float((logits(base(folder)) - ours).abs().max()) > 0.05
    theirs.save_pretrained(tmp_path / "theirs")
    again = base(folder)
    load_adapter(again, tmp_path / "theirs")
    assert float((logits(again) - ours).abs().max()) <= 2e-5


def test_vera_draws_the_projections_that_peft_draws(folder, tmp_path):
    config = VeraConfig(
        r=8, target_modules=["q_proj", "up_proj"], projection_prng_key=7, save_projection=False
    )
    theirs = get_peft_model(base(folder), config).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "vera_lambda" in name:
                parameter.copy_(torch.randn(parameter.shape))
    theirs.save_pretrained(tmp_path)
    model = base(folder)
    load_adapter(model, tmp_path)
    assert float((logits(model) - logits(theirs)).abs().max()) <= 2e-5


def test_an_adalora_of_pefts_is_read_as_the_lora_it_is(folder, tmp_path):
    config = AdaLoraConfig(
        init_r=4, target_r=4, total_step=10, target_modules=["q_proj", "up_proj"], lora_alpha=6
    )
    theirs = get_peft_model(base(folder), config).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape))
            if "layers.0" in name and "lora_E" in name:
                parameter[:3] = 0
    theirs.save_pretrained(tmp_path)
    model = base(folder)
    found = load_adapter(model, tmp_path)
    assert {module.rank for module in found} == {1, 4}
    assert float((logits(model) - logits(theirs)).abs().max()) <= 2e-5


def test_gpt2s_fused_projections_are_adapted_as_pefts_are(tmp_path):
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=64, n_positions=64, n_embd=16, n_layer=2, n_head=2)
    plain = GPT2LMHeadModel(config).eval()
    plain.save_pretrained(tmp_path / "base")
    spec = AdapterSpec(rank=4, alpha=6)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval()
    modules = add_adapter(model, spec, seed=0)
    assert any(m.name.endswith("c_attn") and m.out_features == 48 for m in modules)
    randomize(model)
    save_adapter(model, tmp_path / "ours", spec, ORIGIN)
    theirs = PeftModel.from_pretrained(plain, tmp_path / "ours").eval()
    assert float((logits(theirs) - logits(model)).abs().max()) <= 2e-5


class Picture(nn.Module):
    def __init__(self, two: bool):
        super().__init__()
        torch.manual_seed(0)
        kind = nn.Conv2d if two else nn.Conv1d
        self.conv = kind(3, 6, 3, stride=2, padding=1)
        self.last = kind(6, 4, 2, padding="same", padding_mode="circular", bias=False)

    def forward(self, x):
        return self.last(self.conv(x).relu())


@pytest.mark.parametrize("two", [True, False])
@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_convolutions_are_adapted_as_the_merged_weight_and_as_pefts(tmp_path, two, kind):
    spec = AdapterSpec(kind=kind, rank=2, alpha=3, target_modules=["conv", "last"])
    model = Picture(two).eval()
    add_adapter(model, spec, seed=0)
    randomize(model, 0.4)
    x = torch.randn(2, 3, *([9, 8] if two else [9]))
    y = model(x)
    plain = Picture(two)
    with torch.no_grad():
        for name, layer in adapted_layers(model).items():
            weight = plain.get_submodule(name).weight
            weight.add_(layer.delta().view(weight.shape))
    torch.testing.assert_close(plain(x), y, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(Picture(two)(x), y, atol=1e-2)
    save_adapter(model, tmp_path, spec, ORIGIN)
    again = Picture(two).eval()
    load_adapter(again, tmp_path)
    assert torch.equal(again(x), y)
    config = LoraConfig(r=2, lora_alpha=3, target_modules=["conv"], use_dora=kind == "dora")
    theirs = get_peft_model(Picture(two), config).eval()
    only = Picture(two).eval()
    add_adapter(only, spec.model_copy(update={"target_modules": ["conv"]}), seed=0)
    randomize(only, 0.4)
    with torch.no_grad():
        for part, value in adapter_parameters(only).items():
            key = f"base_model.model.{part}.default.weight"
            theirs.get_parameter(key).copy_(value.view(theirs.get_parameter(key).shape))
    torch.testing.assert_close(theirs(x), only(x), rtol=1e-5, atol=1e-5)


def test_a_grouped_convolution_is_refused():
    model = nn.Sequential(nn.Conv2d(4, 4, 3, groups=2))
    with pytest.raises(AdapterError, match="2 groups"):
        add_adapter(model, AdapterSpec(rank=2, target_modules=["0"]), seed=0)


@pytest.mark.parametrize("held", ["dense", "nf4", "fp4", "int4", "int8"])
@pytest.mark.parametrize("kind", ["lora", "dora", "vera", "adalora", "ia3"])
def test_every_kind_starts_as_its_base_and_has_the_numerical_gradient(kind, held):
    torch.manual_seed(0)
    linear = nn.Linear(6, 5)
    if held != "dense":
        linear = build.quantized(linear.weight, QuantSpec(kind=held), torch.float64, linear.bias)
    model = nn.Sequential(linear).double()
    x = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    before = model(x)
    add_adapter(model, AdapterSpec(kind=kind, rank=2, target_modules=["0"]), seed=0)
    torch.testing.assert_close(model(x).double(), before, rtol=1e-6, atol=1e-6)
    model.double()
    randomize(model, 0.5)
    layer = model[0]
    names = [f"adapters.default.{part}" for part in layer.adapter.trained()]
    names = [name.replace("lora_magnitude_vector", "magnitude") for name in names]
    values = [layer.get_parameter(name) for name in names]
    norm = layer.adapter.norm(layer.base) if kind == "dora" else None

    def value(x, *values):
        # DoRA's norm is a constant in the backward pass, so it must be one here.
        if norm is not None:
            layer.adapter.norm = lambda _: norm
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(value, (x, *values))


def test_several_adapters_are_added_switched_and_deleted(folder):
    model = base(folder)
    plain = logits(model)
    single = {}
    for number, name in enumerate(["one", "two"]):
        spec = AdapterSpec(rank=2 + number, alpha=6, target_modules=["q_proj", "up_proj"])
        add_adapter(model, spec, seed=number, name=name)
        generator = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for parameter in adapter_parameters(model, name).values():
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
        single[name] = logits(model)
    set_adapter(model, "one")
    assert torch.equal(logits(model), single["one"])
    set_adapter(model, None)
    assert torch.equal(logits(model), plain)
    set_adapter(model, ["one", "two"])
    both = logits(model)
    combine_adapters(model, {"one": 1.0, "two": 1.0}, "sum")
    assert float((logits(model) - both).abs().max()) <= 1e-5
    combine_adapters(model, {"one": 1.0, "two": 1.0}, "svd", method="svd", rank=5)
    assert float((logits(model) - both).abs().max()) <= 1e-5  # rank 5 holds the whole sum
    combine_adapters(model, {"one": -1.0, "sum": 1.0}, "difference")
    assert float((logits(model) - single["two"]).abs().max()) <= 1e-5
    with adapter_disabled(model):
        assert torch.equal(logits(model), plain)
    for name in list(adapter_names(model)):
        delete_adapter(model, name)
    assert torch.equal(logits(model), plain)
    assert not adapted_layers(model)
    with pytest.raises(AdapterError, match="no adapter 'one'"):
        set_adapter(model, "one")


def test_linear_combination_is_pefts(folder):
    config = LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj"], init_lora_weights=False)
    theirs = get_peft_model(base(folder), config, adapter_name="a")
    theirs.add_adapter("b", config)
    model = base(folder)
    for name in ("a", "b"):
        add_adapter(
            model, AdapterSpec(rank=4, alpha=6, target_modules=["q_proj"]), seed=0, name=name
        )
        with torch.no_grad():
            for part, value in adapter_parameters(model, name).items():
                value.copy_(theirs.get_parameter(f"base_model.model.{part}.{name}.weight"))
    weights = {"a": 0.7, "b": 0.4}
    theirs.add_weighted_adapter(["a", "b"], [0.7, 0.4], "c", combination_type="linear")
    theirs.set_adapter("c")
    combine_adapters(model, weights, "c", method="linear")
    assert float((logits(model) - logits(theirs.eval())).abs().max()) <= 1e-5


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_rows_of_a_batch_have_adapters_of_their_own(folder, kind):
    model = base(folder)
    ids = torch.arange(3, 27).view(4, 6)
    expected = {None: logits(model, ids)}
    for number, name in enumerate(["one", "two"]):
        spec = AdapterSpec(kind=kind, rank=2, target_modules=["q_proj", "up_proj", "embed_tokens"])
        add_adapter(model, spec, seed=number, name=name)
        generator = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for parameter in adapter_parameters(model, name).values():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
        expected[name] = logits(model, ids)
    rows = ["two", None, "one", "two"]
    with adapter_rows(model, rows):
        mixed = logits(model, ids)
    for place, name in enumerate(rows):
        assert float((mixed[place] - expected[name][place]).abs().max()) <= 1e-5
    with adapter_rows(model, rows), pytest.raises(AdapterError, match="4 adapters"):
        logits(model, ids[:2])


STARTS = ["gaussian", "orthogonal", "pissa", "olora"]


@pytest.mark.parametrize("start", STARTS)
def test_a_start_changes_nothing_and_is_saved_relative_to_the_first_base(folder, tmp_path, start):
    model = base(folder)
    plain = logits(model)
    spec = AdapterSpec(rank=4, alpha=6, init=start, target_modules=["q_proj", "down_proj"])
    add_adapter(model, spec, seed=0)
    # What was taken off the base is in the adapter: float32 rounding is all that differs.
    assert float((logits(model) - plain).abs().max()) <= 2e-5
    with adapter_disabled(model):
        assert float((logits(model) - plain).abs().max()) <= 2e-5
    with torch.no_grad():
        for parameter in adapter_parameters(model).values():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    ours = logits(model)
    save_adapter(model, tmp_path, spec, ORIGIN)
    again = base(folder)
    load_adapter(again, tmp_path)
    assert torch.equal(logits(again), ours)
    theirs = PeftModel.from_pretrained(base(folder), tmp_path).eval()
    assert float((logits(theirs) - ours).abs().max()) <= 2e-5


def test_pissa_starts_where_pefts_does(folder):
    config = LoraConfig(r=4, lora_alpha=4, target_modules=["q_proj"], init_lora_weights="pissa")
    theirs = get_peft_model(base(folder), config)
    model = base(folder)
    spec = AdapterSpec(
        rank=4, alpha=4, init="pissa", svd_iterations=None, target_modules=["q_proj"]
    )
    add_adapter(model, spec, seed=0)
    for path, adapter in adapters_named(model).items():
        layer = theirs.get_submodule(f"base_model.model.{path}")
        delta = layer.lora_B["default"].weight @ layer.lora_A["default"].weight
        torch.testing.assert_close(adapter.delta(), delta, rtol=1e-4, atol=1e-5)


def test_loftq_comes_nearer_to_the_weight_than_quantising_alone(folder, tmp_path):
    errors = {}
    for rounds in (0, 1, 5):
        loaded = load_tiny(folder, quant="nf4")
        if rounds:
            spec = AdapterSpec(rank=8, alpha=8, init="loftq", loftq_iterations=rounds)
            with UnquantizedWeights(loaded.files) as original:
                add_adapter(loaded.model, spec, seed=0, original=original)
        else:
            add_adapter(loaded.model, AdapterSpec(rank=8, alpha=8), seed=0)
        with UnquantizedWeights(loaded.files) as original:
            errors[rounds] = sum(
                float(
                    (original(path) - layer.base.dequantize(torch.float32) - layer.delta()).norm()
                )
                for path, layer in adapted_layers(loaded.model).items()
            )
        if rounds:
            save_adapter(loaded.model, tmp_path / str(rounds), spec, loaded.origin)
            again = load_tiny(folder, quant="nf4")
            with UnquantizedWeights(again.files) as original:
                load_adapter(
                    again.model, tmp_path / str(rounds), origin=again.origin, original=original
                )
            assert torch.equal(logits(again.model), logits(loaded.model))
    assert errors[5] < errors[1] < 0.9 * errors[0]


def test_a_start_that_does_not_fit_its_base_is_refused(folder):
    with pytest.raises(AdapterError, match="not quantised"):
        add_adapter(base(folder), AdapterSpec(rank=4, init="loftq"), seed=0)
    with pytest.raises(AdapterError, match="even rank"):
        add_adapter(base(folder), AdapterSpec(rank=3, init="orthogonal"), seed=0)
    with pytest.raises(NoTargetMatchedError, match="rank_pattern"):
        add_adapter(base(folder), AdapterSpec(rank=3, rank_pattern={"k_porj": 2}), seed=0)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("scale", ["tensor", "row", "block"])
def test_quantised_factors_are_saved_packed_and_load_as_the_same_bits(
    folder, tmp_path, bits, scale
):
    spec = AdapterSpec(rank=4, factors=FactorSpec(bits=bits, scale=scale, block=32))
    model = base(folder)
    add_adapter(model, spec, seed=0)
    randomize(model)
    ours = logits(model)
    save_adapter(model, tmp_path / "packed", spec, ORIGIN)
    again = base(folder)
    load_adapter(again, tmp_path / "packed")
    assert torch.equal(logits(again), ours)
    export_peft(tmp_path / "packed", tmp_path / "peft")
    theirs = PeftModel.from_pretrained(base(folder), tmp_path / "peft").eval()
    assert float((logits(theirs) - ours).abs().max()) <= 2e-5
    save_adapter(model, tmp_path / "plain", AdapterSpec(rank=4), ORIGIN)
    sizes = [
        sum(f.stat().st_size for f in (tmp_path / name).glob("*.safetensors"))
        for name in ("packed", "plain")
    ]
    assert sizes[0] < sizes[1]


def test_a_straight_through_gradient_is_that_of_the_rounded_factors():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5))
    spec = AdapterSpec(rank=2, target_modules=["0"], factors=FactorSpec(bits=3))
    add_adapter(model, spec, seed=0)
    randomize(model, 1.0)
    adapter = model[0].adapter
    x = torch.randn(4, 6)
    model(x).square().sum().backward()
    found = adapter.lora_A.grad.clone(), adapter.lora_B.grad.clone()
    with torch.no_grad():
        A, B = (factor.clone().requires_grad_() for factor in adapter.factors())
    assert len(A[0].abs().unique()) <= 4  # codes -3..3
    linear = model[0].base
    y = linear(x) + adapter.scaling * x @ A.T @ B.T
    wanted = torch.autograd.grad(y.square().sum(), [A, B])
    for mine, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, other)


def test_a_tied_embedding_that_is_trained_stays_one_weight(tiny_llama, tmp_path):
    folder = tiny_llama(tie_word_embeddings=True)
    model = base(folder)
    spec = AdapterSpec(rank=2, target_modules=["q_proj"], modules_to_save=["embed_tokens"])
    add_adapter(model, spec, seed=0)
    trained = adapter_parameters(model)
    whole = [p for name, p in trained.items() if "lora" not in name]
    assert len(whole) == 1
    randomize(model)
    ours = logits(model)
    head = model.get_output_embeddings()
    assert head.copies["default"].weight is whole[0]
    save_adapter(model, tmp_path, spec, ORIGIN)
    again = base(folder)
    load_adapter(again, tmp_path)
    assert torch.equal(logits(again), ours)


def test_folders_are_combined_without_the_model(folder, tmp_path):
    model = base(folder)
    for number, name in enumerate(["one", "two"]):
        spec = AdapterSpec(rank=2 + number, alpha=6, target_modules=["q_proj", "up_proj"])
        if number:
            spec = spec.model_copy(update={"target_modules": ["q_proj"], "init": "pissa"})
        add_adapter(model, spec, seed=number, name=name)
        with torch.no_grad():
            for parameter in adapter_parameters(model, name).values():
                parameter.add_(0.2 * torch.randn(parameter.shape))
        save_adapter(model, tmp_path / name, spec, ORIGIN, name=name)
        delete_adapter(model, name)
    weights = [(tmp_path / "one", 0.7), (tmp_path / "two", -0.4)]
    done = combine_folders(weights, tmp_path / "exact")
    assert done.ranks == (2, 8)
    expected = {}
    for name in ("one", "two"):
        other = base(folder)
        load_adapter(other, tmp_path / name)
        expected[name] = {
            p: la.base.weight + la.delta() - base(folder).get_submodule(p).weight
            for p, la in adapted_layers(other).items()
        }
    loaded = base(folder)
    load_adapter(loaded, tmp_path / "exact")
    for path, layer in adapted_layers(loaded).items():
        wanted = 0.7 * expected["one"][path] - 0.4 * expected["two"].get(path, 0)
        torch.testing.assert_close(layer.delta(), wanted, rtol=1e-4, atol=1e-5)
    theirs = PeftModel.from_pretrained(base(folder), tmp_path / "exact").eval()
    assert float((logits(theirs) - logits(loaded)).abs().max()) <= 2e-5
    combine_folders(weights, tmp_path / "svd", method="svd", rank=3)
    small = base(folder)
    assert {module.rank for module in load_adapter(small, tmp_path / "svd")} == {2, 3}
    for path, layer in adapted_layers(small).items():
        exact = loaded.get_submodule(path).delta().double()
        values = torch.linalg.svdvals(exact)
        # Eckart-Young: no matrix of rank 3 is nearer.
        error = float((layer.delta().double() - exact).norm())
        assert error == pytest.approx(float(values[3:].norm()), rel=1e-3, abs=1e-5)


def test_adapters_of_different_bases_are_not_combined(folder, tmp_path):
    for name, origin in (("one", ORIGIN), ("two", ModelOrigin("other", "there", "cd" * 32))):
        model = base(folder)
        add_adapter(model, AdapterSpec(rank=2), seed=0)
        save_adapter(model, tmp_path / name, AdapterSpec(rank=2), origin)
    with pytest.raises(AdapterError, match="adapters of different bases"):
        combine_folders([(tmp_path / "one", 1), (tmp_path / "two", 1)], tmp_path / "sum")
