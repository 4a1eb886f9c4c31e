"""Generated answers are those of transformers' own `generate`, token for token, in float32."""

from __future__ import annotations

import pytest
import torch
from fusable_models import MODELS, adapted

from etude.tuning.adapters.multi_adapter import adapter_disabled
from etude.tuning.config.sections.adapter import AdapterSpec
from etude.tuning.config.sections.quant import QuantSpec
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
    monkeypatch.setattr(greedy, "_PREFILL_TOKENS", 16)
    torch.manual_seed(4)
    asked = [torch.randint(0, 97, (n,)).tolist() for n in range(1, 22)]
    found, wanted = both(model, [96], tokens=6, asked=asked)
    assert found == wanted


@pytest.mark.parametrize(
    "spec",
    [AdapterSpec(kind="dora", rank=4, alpha=8), AdapterSpec(target_modules=["embed_tokens"])],
)
def test_models_that_are_not_known_are_left_to_transformers(spec):
    model = adapted(MODELS["llama"], spec)
    fast = greedy._Generator.of(model, 1, 8)
    answer = greedy.generate(model, prompts(1), [96], max_new_tokens=5)
    assert answer == greedy._by_transformers(model, prompts(1), [96], 5)
    if spec.kind == "dora":
        assert fast is None


def test_settings_that_change_the_likeliest_token_are_heeded():
    model = adapted(MODELS["llama"])
    plain = greedy.generate(model, prompts(1), [-1], max_new_tokens=20)
    model.generation_config.repetition_penalty = 5.0
    assert greedy._Generator.of(model, 1, 8) is None
    assert greedy.generate(model, prompts(1), [-1], max_new_tokens=20) != plain
