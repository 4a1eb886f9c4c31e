"""Adapters on stacked weights of experts: logits, gradients, files and merges are PEFT's."""

from __future__ import annotations

import json

import pytest
import torch
from architectures import tiny
from peft import LoraConfig, PeftModel, get_peft_model
from small_models import ORIGIN, load_tiny, randomize
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from etude.core.errors import AdapterError, NoTargetMatchedError, RecipeError
from etude.tuning.adapters.combine import combine_adapters
from etude.tuning.adapters.experts import AdaptedExperts, stacked_weights
from etude.tuning.adapters.inject import add_adapter
from etude.tuning.adapters.merge import merge_adapter
from etude.tuning.adapters.multi_adapter import (
    adapter_disabled,
    adapter_parameters,
    adapter_rows,
    set_adapter,
)
from etude.tuning.adapters.save import load_adapter, save_adapter
from etude.tuning.adapters.saved_parts import CONFIG
from etude.tuning.adapters.stacked import StackedLinear, by_expert, grouped_product
from etude.tuning.config.recipe import Recipe
from etude.tuning.config.sections.adapter import AdapterSpec
from etude.tuning.config.sections.model import ModelSpec
from etude.tuning.memory.estimate import estimate_memory
from etude.tuning.preparation import stacked_experts

BOTH = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
ROW = torch.arange(5, 40)[None]

# Sums of float32 in another order, through two layers, and through a router that weighs them.
NEAR = 2e-6

MODELS = ("mixtral", "qwen3_moe", "gpt_oss", "granitemoe", "qwen3_next")


@pytest.fixture(scope="module", params=MODELS)
def folder(request, tmp_path_factory, tiny_tokenizer):
    made = tmp_path_factory.mktemp(request.param)
    tiny(request.param, vocab_size=512).save_pretrained(made)
    tiny_tokenizer.save_pretrained(made)
    return made


@pytest.fixture(scope="module")
def mixtral(tmp_path_factory, tiny_tokenizer):
    made = tmp_path_factory.mktemp("mixtral")
    tiny("mixtral", vocab_size=512).save_pretrained(made)
    tiny_tokenizer.save_pretrained(made)
    return made


def base(folder, experts=None):
    """Return transformers' model; its grouped products know no float64, `eager` ones do."""
    options = {"experts_implementation": experts} if experts else {}
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options).eval()


def logits(model):
    with torch.no_grad():
        return model(input_ids=ROW, use_cache=False).logits


def names_of(folder):
    """Return the two weights as a recipe names them: a module is `mlp` or `block_sparse_moe`."""
    found = {".".join(path.split(".")[-3:]) for path in stacked_weights(base(folder))}
    assert len(found) == 2
    return sorted(found)


def spec_of(folder, **more):
    return AdapterSpec(
        **{
            "rank": 3,
            "alpha": 5,
            "target_modules": ["q_proj"],
            "target_parameters": names_of(folder),
            **more,
        }
    )


def test_each_row_is_multiplied_by_its_experts_weight_and_change():
    draw = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(shape, generator=draw, dtype=torch.float64)

    for transposed in (False, True):
        experts, inner, out, rank = 4, 5, 7, 2
        shape = (experts, inner, out) if transposed else (experts, out, inner)
        base = StackedLinear(torch.nn.Parameter(random(*shape)), transposed=transposed)
        base.requires_grad_(False)
        A, B = random(rank * experts, inner), random(out, rank * experts)
        counts = [3, 0, 1, 4]
        x = random(sum(counts), inner)

        def ours(x, A, B, base=base, counts=counts, experts=experts):
            return grouped_product(base, x, counts, by_expert(A, B, experts))

        # PEFT's layout: A by experts, B by ranks.
        delta = torch.einsum(
            "ore,eri->eoi", B.view(out, rank, experts), A.view(experts, rank, inner)
        )
        which = torch.tensor([e for e, count in enumerate(counts) for _ in range(count)])
        expected = torch.einsum("noi,ni->no", (base.matrices() + delta)[which], x)
        torch.testing.assert_close(ours(x, A, B), expected)
        for one in (x, A, B):
            one.requires_grad_(True)
        assert torch.autograd.gradcheck(ours, (x, A, B))
        alone = grouped_product(base, x, counts, None)
        torch.testing.assert_close(alone, torch.einsum("noi,ni->no", base.matrices()[which], x))

        def frozen(x, base=base, counts=counts):
            return grouped_product(base, x, counts, None)

        assert torch.autograd.gradcheck(frozen, (x,))


@pytest.mark.parametrize("which", [slice(0, 2), slice(0, 1), slice(1, 2)], ids=["both", "a", "b"])
def test_peft_computes_the_same_from_the_saved_folder(folder, tmp_path, which):
    model = base(folder)
    plain = logits(model)
    spec = spec_of(folder, target_parameters=names_of(folder)[which])
    add_adapter(model, spec, seed=0)
    torch.testing.assert_close(logits(model), plain, rtol=0, atol=NEAR * float(plain.abs().max()))
    randomize(model)
    ours = logits(model)
    assert float((ours - plain).abs().max()) > 0.01 * float(plain.abs().max())
    save_adapter(model, tmp_path, spec, ORIGIN)
    peft = PeftModel.from_pretrained(base(folder), tmp_path).eval()
    scale = float(ours.abs().max())
    assert float((logits(peft) - ours).abs().max()) <= NEAR * scale
    again = base(folder)
    load_adapter(again, tmp_path)
    assert torch.equal(logits(again), ours)
    with adapter_disabled(model):
        assert float((logits(model) - plain).abs().max()) <= NEAR * scale


def test_gradients_are_pefts_in_float64(folder, tmp_path):
    model = base(folder)
    spec = spec_of(folder)
    add_adapter(model, spec, seed=0)
    randomize(model)
    save_adapter(model, tmp_path, spec, ORIGIN)
    peft = PeftModel.from_pretrained(base(folder, "eager"), tmp_path, is_trainable=True).double()
    model.double()
    set_adapter(model, "default", trainable=True)
    losses = []
    for one in (model, peft):
        found = one(input_ids=ROW, use_cache=False).logits[0, :-1]
        losses.append(F.cross_entropy(found, ROW[0, 1:]))
        losses[-1].backward()
    torch.testing.assert_close(*losses)
    gradients = {
        name.removeprefix("base_model.model."): p.grad
        for name, p in peft.named_parameters()
        if p.grad is not None
    }
    compared = 0
    for name, parameter in adapter_parameters(model).items():
        path, _, factor = name.rpartition(".")
        if ".experts." in path:
            # The weight that is defined last has the outermost wrapper.
            owner, _, weight = path.rpartition(".")
            path = owner if weight == "down_proj" else f"{owner}.base_layer"
        torch.testing.assert_close(parameter.grad, gradients[f"{path}.{factor}.default.weight"])
        assert float(parameter.grad.abs().max()) > 0
        compared += 1
    assert compared == len(gradients)


def made_by_peft(folder, path, **options):
    config = LoraConfig(
        **{
            "r": 2,
            "lora_alpha": 6,
            "target_modules": ["q_proj"],
            "target_parameters": names_of(folder),
            **options,
        }
    )
    torch.manual_seed(0)
    model = get_peft_model(base(folder), config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(path)
    return model


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_rslora": True},
        {"rank_pattern": {"gate_up_proj": 4}, "alpha_pattern": {"down_proj": 9}},
    ],
    ids=["plain", "rslora", "patterns"],
)
def test_an_adapter_that_peft_made_is_read_and_merged(folder, tmp_path, options):
    theirs = logits(made_by_peft(folder, tmp_path / "theirs", **options))
    model = base(folder)
    load_adapter(model, tmp_path / "theirs")
    scale = float(theirs.abs().max())
    assert float((logits(model) - theirs).abs().max()) <= NEAR * scale
    report = merge_adapter(
        ModelSpec(id=str(folder)), tmp_path / "theirs", tmp_path / "merged", dtype="float32"
    )
    assert report.peft_difference is not None
    assert report.peft_difference <= NEAR * scale
    assert float((logits(base(tmp_path / "merged")) - theirs).abs().max()) <= NEAR * scale


def test_ranks_of_the_two_weights_may_differ(mixtral, tmp_path):
    spec = spec_of(mixtral, rank_pattern={"*.gate_up_proj": 5}, alpha_pattern={"*.down_proj": 3.0})
    model = base(mixtral)
    add_adapter(model, spec, seed=0)
    randomize(model)
    ours = logits(model)
    save_adapter(model, tmp_path, spec, ORIGIN)
    peft = PeftModel.from_pretrained(base(mixtral), tmp_path).eval()
    assert float((logits(peft) - ours).abs().max()) <= NEAR * float(ours.abs().max())


def test_experts_stay_unquantised_beside_a_base_in_4_bits(mixtral, tmp_path):
    loaded = load_tiny(mixtral, quant="nf4", dtype="bfloat16")
    spec = spec_of(mixtral)
    add_adapter(loaded.model, spec, seed=0)
    randomize(loaded.model)
    held = loaded.model.get_submodule("model.layers.0.mlp.experts.gate_up_proj").base
    assert held.weight.dtype == torch.bfloat16
    save_adapter(loaded.model, tmp_path / "a", spec, loaded.origin)
    again = load_tiny(mixtral, quant="nf4", dtype="bfloat16")
    load_adapter(again.model, tmp_path / "a", origin=again.origin)
    assert torch.equal(logits(again.model), logits(loaded.model))
    merge_adapter(ModelSpec(id=str(mixtral)), tmp_path / "a", tmp_path / "m", dtype="float32")


def test_an_early_change_survives_bfloat16():
    """A change of less than half a unit in the last place of W x is not lost before the sum."""
    draw = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(shape, generator=draw)

    base = StackedLinear(torch.nn.Parameter(random(2, 64, 64).bfloat16()), transposed=False)
    counts = [250, 262]
    x = random(512, 64).bfloat16()
    A, B = random(2, 4, 64), 2e-5 * random(2, 64, 4)
    changed = grouped_product(base, x, counts, (A, B)).double()
    plain = grouped_product(base, x, counts, None).double()
    which = torch.tensor([0, 1]).repeat_interleave(torch.tensor(counts))
    change = torch.einsum("noi,ni->no", (B.double() @ A.double())[which], x.double())
    assert float(change.abs().max()) < float(plain.abs().median()) * 2**-9
    # Each output is rounded to 8 bits, most of them to what they were; on average over 32,768 of
    # them the change arrives, within four times what these roundings scatter.
    arrived = float(((changed - plain) * change).sum() / (change * change).sum())
    assert arrived == pytest.approx(1, abs=0.25)


def test_several_adapters_are_summed_and_never_combined_into_one(mixtral):
    model = base(mixtral)
    plain = logits(model)
    for number, name in enumerate("ab"):
        add_adapter(model, spec_of(mixtral, target_modules=[]), seed=number, name=name)
    set_adapter(model, ["a", "b"])
    with torch.no_grad():
        generator = torch.Generator().manual_seed(5)
        for name in "ab":
            for parameter in adapter_parameters(model, name).values():
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    experts = model.model.layers[0].mlp.experts
    assert isinstance(experts, AdaptedExperts)
    hidden = torch.randn(6, 64, generator=torch.Generator().manual_seed(1))
    index = torch.tensor([[0, 1], [2, 3], [1, 3], [0, 2], [3, 1], [2, 0]])
    weights = torch.full((6, 2), 0.5)
    with torch.no_grad():
        summed = experts(hidden, index, weights)
        whole = experts.products()
        matrices = {
            name: layer.add_delta(layer.base.matrices().float().clone())
            for name, layer in whole.items()
        }
        up = torch.einsum("koi,ki->ko", matrices["gate_up_proj"][index[0]], hidden[[0, 0]])
        gate, linear = up.chunk(2, -1)
        inner = F.silu(gate) * linear
        down = torch.einsum("koi,ki->ko", matrices["down_proj"][index[0]], inner)
    torch.testing.assert_close(summed[0], down.mean(0), rtol=1e-5, atol=1e-5)
    with pytest.raises(AdapterError, match="weights of experts, whose adapters cannot be combined"):
        combine_adapters(model, {"a": 1.0, "b": 1.0}, "c")
    with adapter_rows(model, ["a"]), pytest.raises(AdapterError, match="differ within a batch"):
        logits(model)
    with adapter_disabled(model):
        torch.testing.assert_close(logits(model), plain, rtol=1e-5, atol=1e-5)


def test_what_cannot_be_adapted_is_refused_in_one_line(mixtral, tmp_path):
    for entries, message in (
        (["experts.gate_up_porj"], r"did you mean"),
        (["q_proj.weight"], r"name its module in adapter\.target_modules"),
    ):
        with pytest.raises(NoTargetMatchedError, match=message):
            add_adapter(base(mixtral), spec_of(mixtral, target_parameters=entries), seed=0)
    with pytest.raises(NoTargetMatchedError, match="the model has no experts"):
        add_adapter(tiny("llama"), AdapterSpec(target_parameters=BOTH), seed=0)
    llama4 = tiny("llama4_text")
    with pytest.raises(AdapterError, match=r"Llama4TextExperts.* a way of its own"):
        add_adapter(llama4, AdapterSpec(target_parameters=["experts.down_proj"]), seed=0)
    for key, value in {"dropout": 0.1, "kind": "dora", "init": "pissa", "bias": "all"}.items():
        fields = {"adapter": {"target_parameters": BOTH, key: value}}
        with pytest.raises(RecipeError, match=rf"not with adapter\.{key}: "):
            Recipe.parse(fields)
    made_by_peft(mixtral, tmp_path)
    config = json.loads((tmp_path / CONFIG).read_text())
    (tmp_path / CONFIG).write_text(json.dumps({**config, "rank_pattern": {"down_proj": 4}}))
    with pytest.raises(AdapterError, match=r"down_proj are not of rank 4 for 4 experts"):
        load_adapter(base(mixtral), tmp_path)
    with pytest.raises(NoTargetMatchedError, match="the model has no experts"):
        load_adapter(tiny("llama"), tmp_path)


def test_frozen_experts_are_mentioned_and_adapted_ones_are_not(mixtral):
    model = base(mixtral).requires_grad_(False)
    assert "adapter.target_parameters" in stacked_experts(model)
    add_adapter(model, spec_of(mixtral, layers=[0]), seed=0)
    assert "2 tensors" in stacked_experts(model)
    model = base(mixtral)
    add_adapter(model, spec_of(mixtral), seed=0)
    assert stacked_experts(model) is None


def test_the_factors_of_experts_are_planned(mixtral):
    model = base(mixtral)
    spec = spec_of(mixtral)
    add_adapter(model, spec, seed=0)
    trained = sum(p.numel() for p in adapter_parameters(model).values())
    recipe = Recipe.parse(
        {
            "model": {"id": str(mixtral), "dtype": "float32"},
            "quant": {"kind": "none"},
            "adapter": spec.model_dump(),
            "data": {"train": "-", "max_length": 64},
            "train": {"micro_tokens": 128},
            "eval": {"generate": 0},
        }
    )
    plan = estimate_memory(model.config, recipe, torch.float32)
    assert plan.trained == trained
    without = recipe.model_copy(
        update={"adapter": spec.model_copy(update={"target_parameters": []})}
    )
    less = estimate_memory(model.config, without, torch.float32)
    assert plan.parts["gradients"] > less.parts["gradients"]
    assert plan.parameters == less.parameters
