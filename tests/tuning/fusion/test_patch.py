"""Fused layers against the models' own code, in float64 where the truth is asked."""

from __future__ import annotations

import copy

import pytest
import torch
from fusable_models import MODELS, SIZES, adapted
from torch.nn.utils import parameters_to_vector
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from etude.tuning.adapters.multi_adapter import adapter_disabled, adapter_parameters, set_adapter
from etude.tuning.config.sections.adapter import AdapterSpec
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.fusion import patch
from etude.tuning.fusion.forward_probe import logits_are_plain
from etude.tuning.fusion.packed_attention import packed_rows
from etude.tuning.fusion.patch import fused_layers
from etude.tuning.kernels import native
from etude.tuning.objectives.cross_entropy import completion_loss

pytestmark = pytest.mark.skipif(
    not native.status().ready, reason=f"no C++ kernels here: {native.status().reason}"
)

LENGTHS = [30, 1, 26, 7]


def row():
    """Return one packed row, some of it trained."""
    torch.manual_seed(1)
    count = sum(LENGTHS)
    targets = torch.randint(0, 97, (1, count))
    targets[0, ::3] = -100
    return {
        "input_ids": torch.randint(0, 97, (1, count)),
        "targets": targets,
        "position_ids": torch.cat([torch.arange(n) for n in LENGTHS])[None],
        "segment_lengths": list(LENGTHS),
    }


def loss_and_gradient(model, *, fused: bool, layers: int = 3):
    """Return the loss and all gradients of adapters, end to end."""
    trained = adapter_parameters(model)
    model.zero_grad()
    with packed_rows(model):
        if fused:
            with fused_layers(model) as how, counted() as count:
                loss = completion_loss(model, **row())
                loss.backward()
            assert how.fused == 3
            assert len(count) == layers, "as many layers are fused as the test is about"
        else:
            loss = completion_loss(model, **row())
            loss.backward()
    return loss.detach(), parameters_to_vector([p.grad for p in trained.values()])


class counted:  # noqa: N801 - reads as a function
    """Lists the layers that ran fused inside."""

    def __enter__(self):
        self.calls, self.inner = [], patch.decoder_layer

        def call(*given):
            self.calls.append(given)
            return self.inner(*given)

        patch.decoder_layer = call
        return self.calls

    def __exit__(self, *_):
        patch.decoder_layer = self.inner


def error(found, true) -> float:
    return float((found.double() - true).norm() / true.norm())


def truth(model):
    """Return loss and gradient by the model's own code in float64."""
    wide = copy.deepcopy(model).double()
    # Adapters keep the precision that they are trained in; the truth is wanted in double.
    for module in wide.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.dtype == torch.float32:
                setattr(module, name, torch.nn.Parameter(parameter.double()))
    return loss_and_gradient(wide, fused=False)


@pytest.mark.parametrize("kind", MODELS)
def test_a_fused_model_has_the_loss_and_gradient_of_its_own_code(kind):
    model = adapted(MODELS[kind])
    loss, gradient = truth(model)
    found, found_gradient = loss_and_gradient(model, fused=True)
    # float32 through three layers; the model's own code is as far off (below).
    assert error(found, loss) < 1e-6
    assert error(found_gradient, gradient) < 1e-5
    plain, plain_gradient = loss_and_gradient(model, fused=False)
    assert error(plain, loss) < 1e-6
    assert error(plain_gradient, gradient) < 1e-5


@pytest.mark.parametrize("kind", MODELS)
def test_in_bfloat16_it_is_no_further_from_the_truth_than_the_models_own_code(kind):
    far = []
    for seed in range(6):
        model = adapted(MODELS[kind], seed=seed).bfloat16()
        _, gradient = truth(model)
        fused, plain = (loss_and_gradient(model, fused=way) for way in (True, False))
        far.append([error(fused[1], gradient), error(plain[1], gradient)])
    mean = torch.tensor(far).mean(0)
    # A mean over six draws of an error that is one draw of rounding each: a tenth is its noise.
    assert mean[0] < 1.1 * mean[1]


SPECS = {
    "all": AdapterSpec(rank=4, alpha=8),
    "attention alone": AdapterSpec(rank=4, alpha=8, target_modules=["q_proj", "v_proj"]),
    "one of a pair": AdapterSpec(rank=3, alpha=8, target_modules=["up_proj", "o_proj"]),
    "rounded while training": AdapterSpec(rank=4, alpha=8, factors={"bits": 8, "when": "training"}),
    "shared random factors": AdapterSpec(kind="vera", rank=8, target_modules=["q_proj", "v_proj"]),
    "diagonal between": AdapterSpec(kind="adalora", rank=4, alpha=8),
    "magnitudes": AdapterSpec(kind="dora", rank=4, alpha=8),
    "magnitudes of some": AdapterSpec(kind="dora", rank=4, target_modules=["v_proj", "down_proj"]),
}


@pytest.mark.parametrize("name", SPECS)
def test_adapters_of_every_kind_that_is_a_pair_of_factors(name):
    model = adapted(MODELS["llama"], SPECS[name])
    fused, plain = (loss_and_gradient(model, fused=way) for way in (True, False))
    assert error(fused[0], plain[0].double()) < 1e-6
    assert error(fused[1], plain[1].double()) < 1e-5


@pytest.mark.parametrize("kind", ["nf4", "int4", "int8"])
def test_a_quantised_base(kind):
    model = adapted(MODELS["qwen2"], quant=QuantSpec(kind=kind, block=32))
    fused, plain = (loss_and_gradient(model, fused=way) for way in (True, False))
    assert error(fused[0], plain[0].double()) < 1e-6
    assert error(fused[1], plain[1].double()) < 1e-5


def test_integer_products_are_the_same_fused_or_not_and_near_those_of_decoded_weights():
    model = adapted(MODELS["llama"], quant=QuantSpec(kind="int8", compute="int8"))
    fused, plain = (loss_and_gradient(model, fused=way) for way in (True, False))
    decoded = adapted(MODELS["llama"], quant=QuantSpec(kind="int8"))
    true = loss_and_gradient(decoded, fused=False)
    # Rounding amplifies float32's noise wherever a value sits at a tie: not equal, but near.
    assert error(fused[0], plain[0].double()) < 2e-3
    assert error(fused[1], plain[1].double()) < 2e-2
    assert 0 < error(fused[0], true[0].double()) < 5e-3
    assert 0 < error(fused[1], true[1].double()) < 5e-2


def test_layers_computed_again_in_the_backward_pass():
    model = adapted(MODELS["llama"])
    plain = loss_and_gradient(model, fused=True)
    model.train()
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    again = loss_and_gradient(model, fused=True, layers=6)
    assert torch.equal(plain[0], again[0])
    assert torch.equal(plain[1], again[1])


def test_an_adapter_switched_off_and_on_again():
    model = adapted(MODELS["llama"])
    with packed_rows(model), fused_layers(model), torch.no_grad():
        on = completion_loss(model, **row())
        with adapter_disabled(model):
            off = completion_loss(model, **row())
        assert torch.equal(completion_loss(model, **row()), on)
    assert not torch.isclose(on, off)
    with packed_rows(model), torch.no_grad(), adapter_disabled(model):
        torch.testing.assert_close(completion_loss(model, **row()), off, rtol=1e-6, atol=0)


def test_only_what_is_below_an_adapter_is_differentiated():
    model = adapted(
        MODELS["llama"], AdapterSpec(rank=4, alpha=8, target_modules=["model.layers.2.*_proj"])
    )
    trained = adapter_parameters(model)
    assert trained
    assert all("layers.2." in name for name in trained)
    fused, plain = (loss_and_gradient(model, fused=way) for way in (True, False))
    assert error(fused[1], plain[1].double()) < 1e-5


def test_memory_that_is_used_up_is_not_used_twice():
    model = adapted(MODELS["llama"])
    with packed_rows(model), fused_layers(model):
        loss = completion_loss(model, **row())
        loss.backward(retain_graph=True)
        with pytest.raises(RuntimeError, match="run only once"):
            loss.backward()


DROPPING = {
    "lora": AdapterSpec(rank=4, alpha=8, dropout=0.3),
    "lora on some": AdapterSpec(rank=4, dropout=0.3, target_modules=["k_proj", "up_proj"]),
    "dora": AdapterSpec(kind="dora", rank=4, alpha=8, dropout=0.3),
    "vera": AdapterSpec(kind="vera", rank=8, dropout=0.3),
}


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", DROPPING)
def test_dropout_drops_what_the_models_own_code_drops(name, checkpointing):
    model = adapted(MODELS["llama"], DROPPING[name]).train()
    if checkpointing:
        options = {"use_reentrant": False}
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=options)
    found = []
    for fused in (True, False):
        torch.manual_seed(2)
        found.append(loss_and_gradient(model, fused=fused, layers=6 if checkpointing else 3))
        drawn = torch.rand(1)
    (loss, gradient), (plain, plain_gradient) = found
    assert error(loss, plain.double()) < 1e-6
    assert error(gradient, plain_gradient.double()) < 1e-5
    model.eval()
    assert error(loss_and_gradient(model, fused=True)[0], plain.double()) > 1e-4
    model.train()
    # As much was drawn from the generator, so what follows draws the same as well.
    torch.manual_seed(2)
    loss_and_gradient(model, fused=True, layers=6 if checkpointing else 3)
    assert torch.equal(torch.rand(1), drawn)


UNFIT = {
    "scaled inputs and outputs": AdapterSpec(kind="ia3"),
    "trained biases": AdapterSpec(rank=4, bias="all", target_modules=["q_proj"]),
}
REASONS = {"scaled inputs and outputs": "IA3", "trained biases": "biases are trained"}


@pytest.mark.parametrize("name", UNFIT)
def test_what_the_fused_step_does_not_compute_takes_the_layers_own_code(name):
    model = adapted(MODELS["llama with biases"], UNFIT[name]).train()
    with packed_rows(model), fused_layers(model) as how, counted() as count:
        assert (how.fused, how.layers) == (0, 3)
        assert REASONS[name] in str(how)
        torch.manual_seed(2)
        fused = completion_loss(model, **row())
    torch.manual_seed(2)
    with packed_rows(model):
        assert torch.equal(completion_loss(model, **row()), fused)
    assert not count
    assert how.ran.keys() == {0, 1, 2}
    assert all(REASONS[name] in str(why) for why in how.ran.values())


def test_what_is_said_is_what_ran():
    model = adapted(MODELS["llama"])
    with packed_rows(model), fused_layers(model) as how, torch.no_grad():
        assert str(how).startswith("3 fused decoder layers")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            completion_loss(model, **row())
        assert str(how) == "0 of 3 decoder layers fused: autocast is on"
        completion_loss(model, **row())
        assert str(how).startswith("3 fused decoder layers")


def test_hooks_are_heard():
    model = adapted(MODELS["llama"])
    logits_are_plain(model)  # asked once a model, in a pass of its own
    heard = []
    layer = model.model.layers[1]
    handle = layer.mlp.up_proj.register_forward_hook(lambda *given: heard.append(given))
    with packed_rows(model), fused_layers(model), counted() as count, torch.no_grad():
        completion_loss(model, **row())
    handle.remove()
    assert len(heard) == 1
    assert len(count) == 2


def test_rows_that_are_not_packed_take_the_layers_own_code():
    model = adapted(MODELS["llama"])
    ids = torch.randint(0, 97, (2, 9))
    mask = torch.ones_like(ids)
    mask[0, 5:] = 0
    plain = model(input_ids=ids, attention_mask=mask).logits
    with fused_layers(model), counted() as count:
        assert torch.equal(model(input_ids=ids, attention_mask=mask).logits, plain)
    assert not count


def test_models_and_weights_that_are_not_known_are_left_alone_and_say_so():
    other = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=32, vocab_size=97))
    with fused_layers(other) as how:
        assert (how.fused, how.layers) == (0, 0)
        assert "no supported layers" in str(how)
    trained = MODELS["llama"]()
    with fused_layers(trained) as how:
        assert how.fused == 0
        assert "weights of the base are trained" in str(how)
    half = adapted(MODELS["llama"]).half()
    with fused_layers(half) as how:
        assert "no kernels for torch.float16" in str(how)


def test_the_model_is_left_as_it_was():
    model = adapted(MODELS["llama"])
    with fused_layers(model):
        with fused_layers(model) as inner:
            assert inner.fused == 3
        assert all("forward" in vars(layer) for layer in model.model.layers)
    assert all("forward" not in vars(layer) for layer in model.model.layers)
    with pytest.raises(KeyError), fused_layers(model):
        raise KeyError
    assert all("forward" not in vars(layer) for layer in model.model.layers)


def test_the_count_is_of_the_mode_that_the_model_is_in():
    config = LlamaConfig(**SIZES, attention_dropout=0.1)
    model = adapted(lambda: LlamaForCausalLM(config)).train()
    with packed_rows(model), fused_layers(model) as training:
        assert training.fused == 0
        assert "0 of 3 decoder layers fused: dropout on the attention weights is active" in str(
            training
        )
        model.eval()
        with fused_layers(model) as evaluating, counted() as count, torch.no_grad():
            completion_loss(model, **row())
        assert evaluating.fused == len(count) == 3


@pytest.mark.parametrize(
    ("saved", "layers"),
    [
        (["input_layernorm", "norm"], 3),
        (["post_attention_layernorm"], 3),
        (["lm_head"], 3),
        (["down_proj"], 0),
        (["mlp"], 0),
        (["model.layers.1"], 2),
    ],
)
def test_an_evaluation_computes_with_the_modules_that_were_trained_whole(saved, layers):
    spec = AdapterSpec(rank=4, alpha=8, target_modules=["q_proj", "v_proj"], modules_to_save=saved)
    if saved == ["model.layers.1"]:
        spec = spec.model_copy(update={"target_modules": ["model.layers.[02].self_attn.q_proj"]})
    model = adapted(MODELS["llama"], spec)
    training = loss_of(model)
    set_adapter(model, "default")  # as a loaded adapter is: nothing requires a gradient
    with packed_rows(model), fused_layers(model), counted() as count, torch.no_grad():
        found = completion_loss(model, **row())
        with adapter_disabled(model):
            off = completion_loss(model, **row())
    assert error(found, training) < 1e-6
    assert error(off, training) > 1e-4  # the trained modules are far more than rounding
    assert len(count) >= 2 * layers


def loss_of(model):
    """Return the loss by the model's own code."""
    with packed_rows(model), torch.no_grad():
        return completion_loss(model, **row()).double()
