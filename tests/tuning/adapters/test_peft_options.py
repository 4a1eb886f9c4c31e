"""PEFT's options: an adapter that PEFT made computes, alone and merged, what it computes there."""

from __future__ import annotations

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from small_models import ORIGIN, load_tiny, logits, randomize
from transformers import AutoModelForCausalLM

from etude.core.errors import AdapterError, NoTargetMatchedError
from etude.tuning.adapters.inject import add_adapter
from etude.tuning.adapters.merge import merge_adapter
from etude.tuning.adapters.multi_adapter import (
    adapted_layers,
    adapter_disabled,
    adapter_parameters,
    delete_adapter,
)
from etude.tuning.adapters.read import read_adapter
from etude.tuning.adapters.save import load_adapter, save_adapter
from etude.tuning.adapters.saved_parts import CONFIG
from etude.tuning.config.sections.adapter import AdapterSpec
from etude.tuning.config.sections.model import ModelSpec

pytestmark = pytest.mark.integration

# Sums of float32 in another order, through two layers.
NEAR = 2e-5

OPTIONS = {
    "a tied head trained alone": {"modules_to_save": ["lm_head"]},
    "a tied embedding trained alone": {"modules_to_save": ["embed_tokens"]},
    "both ends of a tie": {"modules_to_save": ["lm_head", "embed_tokens"]},
    "a tie that is kept": {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    "names by their ending": {"modules_to_save": ["norm"]},
    "the head adapted": {"target_modules": ["lm_head", "q_proj"]},
    "the embedding adapted": {"target_modules": ["embed_tokens"]},
    "all biases": {"bias": "all"},
    "biases of what is adapted": {"bias": "lora_only"},
    "one layer": {"layers_to_transform": [1]},
    "one layer by a number": {"layers_to_transform": 0, "layers_pattern": "layers"},
    "rows of the embedding": {"trainable_token_indices": [3, 8, 30]},
    "rows by name": {"trainable_token_indices": {"embed_tokens": [5, 6]}},
    "ranks and alphas": {"rank_pattern": {"q_proj": 3}, "alpha_pattern": {"v_proj": 1.5}},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "dora with biases": {"use_dora": True, "bias": "all"},
    "pissa": {"init_lora_weights": "pissa"},
    "olora": {"init_lora_weights": "olora"},
}


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def folder(request, tiny_llama):
    return tiny_llama(tied=request.param, attention_bias=True)


def base(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def made_by_peft(folder, path, **options):
    config = LoraConfig(
        **{"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "v_proj"], **options}
    )
    torch.manual_seed(0)
    model = get_peft_model(base(folder), config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(path)
    return model


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_of_pefts_is_read_and_merged(folder, tmp_path, name):
    theirs = logits(made_by_peft(folder, tmp_path / "adapter", **OPTIONS[name]))
    plain = logits(base(folder))
    model = base(folder)
    load_adapter(model, tmp_path / "adapter")
    scale = max(1.0, float(theirs.abs().max()))
    assert float((logits(model) - theirs).abs().max()) <= NEAR * scale
    assert float((theirs - plain).abs().max()) > 0.02 * scale
    with adapter_disabled(model):
        # What an initialisation took of the base is given back, rounded once more.
        assert float((logits(model) - plain).abs().max()) <= NEAR * scale
    spec = ModelSpec(id=str(folder))
    report = merge_adapter(spec, tmp_path / "adapter", tmp_path / "merged", dtype="float32")
    assert float((logits(base(tmp_path / "merged")) - theirs).abs().max()) <= NEAR * scale
    assert report.peft_difference is not None
    assert report.peft_difference <= NEAR * scale


def test_a_start_that_peft_made_of_one_end_of_a_tie_is_refused(folder, tmp_path):
    made_by_peft(folder, tmp_path, init_lora_weights="pissa", target_modules=["lm_head"])
    model = base(folder)
    if not model.config.tie_word_embeddings:
        assert load_adapter(model, tmp_path)
        return
    with pytest.raises(AdapterError, match=r"changed lm_head, and with it model\.embed_tokens"):
        load_adapter(model, tmp_path)


def test_biases_and_rows_that_do_not_fit_are_refused(folder, tmp_path):
    made_by_peft(folder, tmp_path, bias="all")
    config = json.loads((tmp_path / CONFIG).read_text())
    (tmp_path / CONFIG).write_text(json.dumps({**config, "bias": "none"}))
    with pytest.raises(AdapterError, match=r"unexpected in .*bias"):
        read_adapter(tmp_path)
    made_by_peft(folder, tmp_path / "none")
    config = json.loads((tmp_path / "none" / CONFIG).read_text())
    (tmp_path / "none" / CONFIG).write_text(json.dumps({**config, "bias": "all"}))
    with pytest.raises(AdapterError, match=r"bias: all, but those of .*k_proj"):
        load_adapter(base(folder), tmp_path / "none")
    rows = {**config, "trainable_token_indices": [3]}
    (tmp_path / "none" / CONFIG).write_text(json.dumps(rows))
    with pytest.raises(AdapterError, match="trainable_token_indices are not in"):
        load_adapter(base(folder), tmp_path / "none")
    made_by_peft(folder, tmp_path / "rows", trainable_token_indices=[3, 8])
    config = json.loads((tmp_path / "rows" / CONFIG).read_text())
    for indices in ([3], [3, 10**6]):
        changed = {**config, "trainable_token_indices": indices}
        (tmp_path / "rows" / CONFIG).write_text(json.dumps(changed))
        with pytest.raises(AdapterError, match=r"rows of model\.embed_tokens do not fit"):
            load_adapter(base(folder), tmp_path / "rows")


@pytest.mark.parametrize("init", ["pissa", "olora"])
@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_a_start_that_rewrites_one_end_of_a_tie_leaves_the_other(folder, tmp_path, init, target):
    model = base(folder)
    plain, other = logits(model), model.model.embed_tokens.weight.detach().clone()
    spec = AdapterSpec(rank=4, init=init, target_modules=[target, "q_proj"])
    add_adapter(model, spec, seed=0)
    # Up to the rounding of W − T in float32.
    assert float((logits(model) - plain).abs().max()) <= NEAR
    left = model.lm_head if target == "embed_tokens" else model.model.embed_tokens
    assert torch.equal(left.weight, base(folder).lm_head.weight if left is model.lm_head else other)
    randomize(model)
    ours = logits(model)
    save_adapter(model, tmp_path, spec, ORIGIN)
    again = base(folder)
    load_adapter(again, tmp_path)
    assert float((logits(again) - ours).abs().max()) <= NEAR * float(ours.abs().max())


@pytest.mark.parametrize("bias", ["all", "lora_only"])
def test_biases_are_trained_switched_off_saved_for_peft_and_deleted(folder, tmp_path, bias):
    from peft import PeftModel

    model = base(folder)
    plain = logits(model)
    spec = AdapterSpec(rank=4, bias=bias, target_modules=["q_proj", "up_proj"])
    add_adapter(model, spec, seed=0)
    assert float((logits(model) - plain).abs().max()) <= NEAR
    trained = [name for name in adapter_parameters(model) if name.endswith(".bias")]
    per_layer = 1 if bias == "lora_only" else 4  # q, k, v and o have one
    assert len(trained) == 2 * per_layer
    randomize(model)
    ours = logits(model)
    save_adapter(model, tmp_path, spec, ORIGIN)
    theirs = PeftModel.from_pretrained(base(folder), tmp_path).eval()
    assert float((logits(theirs) - ours).abs().max()) <= NEAR
    with adapter_disabled(model):
        assert torch.equal(logits(model), plain)
    delete_adapter(model, "default")
    assert torch.equal(logits(model), plain)
    assert not adapted_layers(model)


def test_layers_are_chosen_by_their_number(folder, tmp_path):
    model = base(folder)
    found = add_adapter(model, AdapterSpec(rank=4, layers=[1]), seed=0)
    assert len(found) == 7
    assert all(module.name.startswith("model.layers.1.") for module in found)
    with pytest.raises(NoTargetMatchedError, match=r"layer 7; the model's layers: 0 to 1"):
        add_adapter(base(folder), AdapterSpec(rank=4, layers=[0, 7]), seed=0)


def test_an_adapter_that_unties_beside_one_that_does_not_is_refused(tiny_llama, tmp_path):
    folder = tiny_llama(tied=True)
    made_by_peft(folder, tmp_path, modules_to_save=["lm_head"])
    model = load_tiny(folder).model
    add_adapter(model, AdapterSpec(rank=4, modules_to_save=["lm_head"]), seed=0, name="tied")
    with pytest.raises(AdapterError, match="shares its weight with another module for one"):
        load_adapter(model, tmp_path, name="untied")
