"""What anybody may rely on, whatever the kind: the contract of PEFT's and litgpt's own tests."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from small_models import ORIGIN, load_tiny, logits, randomize

from etude.core.errors import AdapterError
from etude.tuning.adapters.inject import add_adapter
from etude.tuning.adapters.merge import merge_layers
from etude.tuning.adapters.multi_adapter import adapted_layers, adapter_disabled, adapter_parameters
from etude.tuning.adapters.save import load_adapter, save_adapter
from etude.tuning.config.sections.adapter import AdapterSpec

KINDS = {
    "lora": AdapterSpec(rank=4, alpha=8),
    "rslora": AdapterSpec(rank=4, alpha=8, rslora=True),
    "dora": AdapterSpec(kind="dora", rank=4, alpha=8),
    "vera": AdapterSpec(kind="vera", rank=8, target_modules=["q_proj", "v_proj"]),
    "adalora": AdapterSpec(kind="adalora", rank=4, alpha=8),
    "ia3": AdapterSpec(kind="ia3"),
}
HELD = ("none", "nf4", "int8")


@pytest.fixture(params=HELD)
def held(request, tiny_llama):
    """A base, and how it is held."""
    return tiny_llama(), request.param


@pytest.mark.parametrize("kind", KINDS)
def test_a_fresh_adapter_changes_nothing_and_an_adapter_switched_off_neither(held, kind):
    folder, quant = held
    model = load_tiny(folder, quant=quant).model
    before = logits(model)
    add_adapter(model, KINDS[kind], seed=0)
    # DoRA divides by the norm that it multiplies with; the others add an exact zero.
    if kind == "dora":
        torch.testing.assert_close(logits(model), before, rtol=1e-4, atol=1e-5)
    else:
        assert torch.equal(logits(model), before)
    randomize(model)
    tuned = logits(model)
    assert not torch.allclose(tuned, before, atol=1e-3)
    with adapter_disabled(model):
        assert torch.equal(logits(model), before)
        with adapter_disabled(model):
            assert torch.equal(logits(model), before)
        assert torch.equal(logits(model), before)
    assert torch.equal(logits(model), tuned)
    with pytest.raises(KeyError), adapter_disabled(model):
        raise KeyError
    assert torch.equal(logits(model), tuned)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_the_adapter_and_nothing_else_and_a_step_moves_it_alone(held, kind):
    folder, quant = held
    model = load_tiny(folder, quant=quant).model
    add_adapter(model, KINDS[kind], seed=0)
    randomize(model)
    own = adapter_parameters(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()(input_ids=torch.arange(3, 40)[None]).logits.square().mean().backward()
    trained = {id(parameter) for parameter in own.values()}
    for parameter in model.parameters():
        assert (parameter.grad is not None) == (id(parameter) in trained)
    torch.optim.SGD(own.values(), lr=0.5).step()
    for name, value in model.state_dict(keep_vars=True).items():
        if id(value) not in trained:
            assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("kind", KINDS)
def test_recomputing_layers_gives_the_same_gradients(held, kind):
    folder, quant = held
    found = []
    for recompute in (False, True):
        model = load_tiny(folder, quant=quant).model
        add_adapter(model, KINDS[kind], seed=0)
        randomize(model)
        if recompute:
            model.activation_checkpointing_enable(
                activation_checkpointing_kwargs={"use_reentrant": False}
            )
        model.train()(input_ids=torch.arange(3, 40)[None]).logits.square().mean().backward()
        found.append([parameter.grad for parameter in adapter_parameters(model).values()])
    for plain, again in zip(*found, strict=True):
        assert torch.equal(plain, again)
        assert plain.abs().max() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_saving_again_gives_the_same_bytes_and_loading_again_the_same_model(held, kind, tmp_path):
    folder, quant = held
    model = load_tiny(folder, quant=quant).model
    add_adapter(model, KINDS[kind], seed=0)
    randomize(model)
    tuned = logits(model)
    for name in ("one", "two"):
        save_adapter(model, tmp_path / name, KINDS[kind], ORIGIN)
    one, two = (load_file(tmp_path / n / "adapter_model.safetensors") for n in ("one", "two"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    other = load_tiny(folder, quant=quant).model
    load_adapter(other, tmp_path / "one")
    if kind == "adalora":  # saved as the LoRA that it comes to
        torch.testing.assert_close(logits(other), tuned, rtol=1e-4, atol=1e-5)
    else:
        assert torch.equal(logits(other), tuned)


@pytest.mark.parametrize("kind", KINDS)
def test_a_merged_model_is_plain_computes_the_same_and_is_not_merged_again(held, kind):
    folder, quant = held
    model = load_tiny(folder, quant=quant).model
    add_adapter(model, KINDS[kind], seed=0)
    randomize(model)
    tuned = logits(model)
    expected = {name: layer.delta() for name, layer in adapted_layers(model).items()}
    assert expected
    merge_layers(model, torch.float32)
    assert not adapted_layers(model)
    merged = logits(model)
    # float32 rounds W + ΔW once, where base and adapter are summed in the output.
    torch.testing.assert_close(merged, tuned, rtol=1e-3, atol=1e-4)
    merge_layers(model, torch.float32)
    assert torch.equal(logits(model), merged)


def test_an_adapter_of_rank_zero_or_on_nothing_is_refused(tiny_llama):
    model = load_tiny(tiny_llama()).model
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        AdapterSpec(rank=0)
    with pytest.raises(AdapterError, match="match"):
        add_adapter(model, AdapterSpec(target_modules=["no_such"]), seed=0)
    assert not adapted_layers(model)
