"""Generated answers are those of transformers' own `generate`, token for token, in float32."""

from __future__ import annotations

import itertools

import pytest
import torch
from fusable_models import MODELS, SIZES, adapted
from transformers import LlamaConfig, LlamaForCausalLM

from etude.tuning.adapters.multi_adapter import adapter_disabled, set_adapter
from etude.tuning.config.sections.adapter import AdapterSpec
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.fusion.forward_probe import logits_are_plain
from etude.tuning.generation import greedy
from etude.tuning.kernels import native

pytestmark = pytest.mark.skipif(
    not native.status().ready, reason=f"no C++ kernels here: {native.status().reason}"
)


def prompts(count: int = 5) -> list[list[int]]:
    torch.manual_seed(3)
    return [torch.randint(0, 97, (n,)).tolist() for n in (9, 1, 30, 17, 4)[:count]]


def both(model, ends, tokens=24, asked=None):
    asked = asked or prompts()
    fast = greedy._Generator.of(model, len(asked), 64)
    assert fast is not None, "the fast way is what is tested"
    found = greedy.generate(model, asked, ends, max_new_tokens=tokens)
    # One at a time: padding is not to be what differs.
    wanted = [greedy._by_transformers(model, [one], ends, tokens)[0] for one in asked]
    return found, wanted


@pytest.mark.parametrize("kind", MODELS)
def test_answers_are_those_of_transformers(kind):
    found, wanted = both(adapted(MODELS[kind]), [96])
    assert found == wanted
    assert max(map(len, found)) == 24


def test_a_quantised_base_and_an_adapter_that_is_off():
    model = adapted(MODELS["llama"], quant=QuantSpec(kind="nf4", block=32))
    on, wanted = both(model, [96])
    assert on == wanted
    with adapter_disabled(model):
        off, wanted = both(model, [96])
        assert off == wanted
    assert on != off


def test_answers_end_where_they_end_and_the_others_go_on():
    model = adapted(MODELS["llama"])
    free, _ = both(model, [-1])
    # Tokens that come early in some answers and late, or not at all, in others.
    ends = sorted({free[0][2], free[2][7]})
    found, wanted = both(model, ends)
    assert found == wanted
    lengths = {len(answer) for answer in found}
    assert len(lengths) > 1
    for answer in found:
        assert all(token not in ends for token in answer[:-1])
        assert answer[-1] in ends or len(answer) == 24


def test_many_prompts_and_prompts_longer_than_a_pass(monkeypatch):
    model = adapted(MODELS["mistral"])
    monkeypatch.setattr(greedy, "PREFILL_TOKENS", 16)
    torch.manual_seed(4)
    asked = [torch.randint(0, 97, (n,)).tolist() for n in range(1, 22)]
    found, wanted = both(model, [96], tokens=6, asked=asked)
    assert found == wanted


@pytest.mark.parametrize(
    "spec",
    [AdapterSpec(kind="ia3"), AdapterSpec(target_modules=["embed_tokens"])],
)
def test_models_that_are_not_known_are_left_to_transformers(spec):
    model = adapted(MODELS["llama"], spec)
    fast = greedy._Generator.of(model, 1, 8)
    answer = greedy.generate(model, prompts(1), [96], max_new_tokens=5)
    assert answer == greedy._by_transformers(model, prompts(1), [96], 5)
    if spec.kind == "ia3":
        assert fast is None


def test_settings_that_change_the_likeliest_token_are_heeded():
    model = adapted(MODELS["llama"])
    plain = greedy.generate(model, prompts(1), [-1], max_new_tokens=20)
    model.generation_config.repetition_penalty = 5.0
    assert greedy._Generator.of(model, 1, 8) is None
    assert greedy.generate(model, prompts(1), [-1], max_new_tokens=20) != plain


SAVED = {
    "nothing": [],
    "every norm": ["norm", "input_layernorm", "post_attention_layernorm"],
    "the head": ["lm_head"],
    "a Linear": ["down_proj"],
    "a whole block": ["mlp"],
}


def shaped(width: int = 16, activation: str = "silu", saved: str = "nothing"):
    """Return a Llama with an adapter, heads of `width`, and modules that are trained whole."""
    sizes = {**SIZES, "head_dim": width, "hidden_act": activation, "num_hidden_layers": 2}
    targets = ["q_proj", "v_proj"]
    spec = AdapterSpec(rank=4, alpha=8, target_modules=targets, modules_to_save=SAVED[saved])
    model = adapted(lambda: LlamaForCausalLM(LlamaConfig(**sizes)), spec)
    set_adapter(model, "default")
    return model


def answers(model):
    """Return what `generate` gives and what transformers does, one prompt at a time."""
    found = greedy.generate(model, prompts(3), [96], max_new_tokens=12)
    return found, [greedy._by_transformers(model, [one], [96], 12)[0] for one in prompts(3)]


WIDTHS = [4, 8, 12, 16, 24, 40, 72, 100]
SHAPED = list(itertools.product(WIDTHS, ["silu", "gelu", "relu"], ["nothing", "every norm"]))


@pytest.mark.parametrize(
    ("width", "activation", "saved"),
    # Of these 48, every fifth: each width, and each activation with each kind of norms.
    [
        pytest.param(*one, marks=[] if number % 5 == 0 else [pytest.mark.slow])
        for number, one in enumerate(SHAPED)
    ],
)
def test_heads_of_any_width_and_activations_of_any_kind(width, activation, saved):
    found, wanted = answers(shaped(width, activation, saved))
    assert found == wanted


@pytest.mark.parametrize("saved", SAVED)
def test_modules_trained_whole_are_those_that_answer(saved):
    model = shaped(saved=saved)
    on, wanted = answers(model)
    assert on == wanted
    with adapter_disabled(model):
        off, wanted = answers(model)
    assert off == wanted
    assert on != off
    # The norms' trained weights reach the fast way; what it cannot read goes another way.
    fast = greedy._Generator.of(model, 1, 8) is not None
    assert fast == (saved in ("nothing", "every norm"))


@pytest.mark.parametrize("part", ["model", "model.norm", "model.layers.1", "model.layers.1.mlp"])
def test_a_hook_on_a_part_of_the_model_is_heard(part):
    model = shaped()
    logits_are_plain(model)  # asked once a model, in a pass of its own
    calls = []
    handle = model.get_submodule(part).register_forward_hook(lambda *_: calls.append(part))
    greedy.generate(model, prompts(1), [-1], max_new_tokens=3)
    handle.remove()
    assert len(calls) == 3


def test_positions_that_depend_on_the_length_are_left_to_transformers():
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    config = LlamaConfig(**SIZES, rope_parameters=rope, max_position_embeddings=16)
    model = adapted(lambda: LlamaForCausalLM(config))
    assert greedy._Generator.of(model, 1, 8) is None
    found = greedy.generate(model, prompts(1), [96], max_new_tokens=12)
    assert found == greedy._by_transformers(model, prompts(1), [96], 12)
