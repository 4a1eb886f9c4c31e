"""LoRA: values and gradients of W x + s B A x, whatever the base, under whatever autograd."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from small_models import load_tiny, randomize
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForCausalLM

from etude.core.errors import AdapterError
from etude.tuning.adapters.inject import add_adapter
from etude.tuning.adapters.kinds.lora import LoRA
from etude.tuning.adapters.layer import AdaptedLayer
from etude.tuning.adapters.multi_adapter import (
    DEFAULT,
    AdaptedModule,
    adapted_layers,
    adapter_disabled,
    adapter_parameters,
)
from etude.tuning.adapters.product import base_product
from etude.tuning.config.sections.adapter import AdapterSpec
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.quant import build
from etude.tuning.quant.linear import QuantLinear

BASES = ("dense", "nf4", "fp4", "int4", "int8")


def base_of(kind: str, in_features: int, out_features: int, bias: bool, dtype: torch.dtype):
    linear = nn.Linear(in_features, out_features, bias=bias)
    if kind == "dense":
        return linear.to(dtype)
    quant = QuantSpec(kind=kind, block=32)
    return build.quantized(linear.weight, quant, dtype, linear.bias)


def adapter_on(base, rank=3, alpha=5.0, dropout=0.0, seed=0) -> AdaptedLayer:
    """An adapter whose factors are both random: as after training."""
    layer = AdaptedLayer(base)
    layer.adapters[DEFAULT] = LoRA(base, rank, alpha, dropout)
    layer.active = (DEFAULT,)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        layer.adapter.lora_A.copy_(torch.randn(layer.adapter.lora_A.shape, generator=generator))
        layer.adapter.lora_B.copy_(torch.randn(layer.adapter.lora_B.shape, generator=generator))
    return layer


def dense_weight(layer: AdaptedLayer) -> torch.Tensor:
    base = layer.base
    return base.dequantize(torch.float64) if isinstance(base, QuantLinear) else base.weight.double()


class OneProjection(nn.Module):
    def __init__(self, in_features, out_features, bias):
        super().__init__()
        self.proj = nn.Linear(in_features, out_features, bias=bias, dtype=torch.float64)

    def forward(self, x):
        return self.proj(x)


@given(
    in_features=st.integers(2, 40),
    out_features=st.integers(2, 40),
    rank=st.integers(1, 8),
    alpha=st.integers(1, 64),
    bias=st.booleans(),
    batch=st.lists(st.integers(1, 4), min_size=1, max_size=3),
)
def test_values_and_gradients_are_those_of_pefts_layer(
    in_features, out_features, rank, alpha, bias, batch
):
    rank = min(rank, in_features, out_features)
    model = OneProjection(in_features, out_features, bias)
    ours = adapter_on(model.proj, rank, alpha).double()
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=["proj"])
    theirs = get_peft_model(model, config)
    layer = theirs.base_model.model.proj
    with torch.no_grad():
        layer.lora_A["default"].weight.data = ours.adapter.lora_A.detach().clone()
        layer.lora_B["default"].weight.data = ours.adapter.lora_B.detach().clone()
    x = torch.randn(*batch, in_features, dtype=torch.float64, requires_grad=True)
    g = torch.randn(*batch, out_features, dtype=torch.float64)
    factors = [layer.lora_A["default"].weight, layer.lora_B["default"].weight]
    for factor in factors:
        factor.requires_grad_(True)
    expected = theirs(x)
    value = ours(x)
    wanted = torch.autograd.grad(expected, [x, *factors], g)
    found = torch.autograd.grad(value, [x, ours.adapter.lora_A, ours.adapter.lora_B], g)
    # The same sums of at most 64 · 40 float64 products in another order.
    torch.testing.assert_close(value, expected, rtol=1e-11, atol=1e-11)
    for mine, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kind", BASES)
@pytest.mark.parametrize("bias", [False, True])
def test_gradients_are_the_numerical_ones(kind, bias):
    layer = adapter_on(base_of(kind, 6, 5, bias, torch.float64)).double()
    x = torch.randn(2, 3, 6, dtype=torch.float64, requires_grad=True)

    def value(x, A, B):
        return torch.func.functional_call(
            layer, {"adapters.default.lora_A": A, "adapters.default.lora_B": B}, (x,)
        )

    assert torch.autograd.gradcheck(value, (x, layer.adapter.lora_A, layer.adapter.lora_B))


def test_a_second_derivative_is_refused_rather_than_wrong():
    layer = adapter_on(base_of("dense", 6, 5, False, torch.float32))
    x = torch.randn(2, 6, requires_grad=True)
    (dx,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        dx.sum().backward()


@given(
    kind=st.sampled_from(BASES),
    in_features=st.integers(2, 300),
    out_features=st.integers(2, 300),
    rank=st.integers(1, 16),
    seed=st.integers(0, 1000),
)
def test_bfloat16_is_within_its_rounding_of_float64(kind, in_features, out_features, rank, seed):
    torch.manual_seed(seed)
    rank = min(rank, in_features, out_features)
    layer = adapter_on(base_of(kind, in_features, out_features, True, torch.bfloat16), rank)
    A, B, s = (
        layer.adapter.lora_A.detach().double(),
        layer.adapter.lora_B.detach().double(),
        layer.adapter.scaling,
    )
    W, b = dense_weight(layer), layer.base.bias.double()
    x = torch.randn(4, in_features).bfloat16().requires_grad_()
    g = torch.randn(4, out_features).bfloat16()
    y = layer(x)
    dx, dA, dB = torch.autograd.grad(y, [x, layer.adapter.lora_A, layer.adapter.lora_B], g)
    assert (dx.dtype, dA.dtype, dB.dtype) == (torch.bfloat16, torch.float32, torch.float32)

    X, G = x.detach().double(), g.double()
    Xa, Ga, Wa, Aa, Ba = X.abs(), G.abs(), W.abs(), A.abs(), B.abs()
    # Eight bits hold a number to u = 2^-8 of itself. Sums are float32. Rounded are, on the longest
    # way, to y: A, h, B, what the adapter adds, the sum, the sum with the bias; to dx: B, s·gB, A,
    # what the adapter adds, the sum; to dA: B, s·gB, the product; to dB: A, h, the product.
    u = 2**-8
    cases = [
        (6, y, X @ W.T + b + s * (X @ A.T) @ B.T, Xa @ Wa.T + b.abs() + s * (Xa @ Aa.T) @ Ba.T),
        (5, dx, G @ W + s * (G @ B) @ A, Ga @ Wa + s * (Ga @ Ba) @ Aa),
        (3, dA, s * (G @ B).T @ X, s * (Ga @ Ba).T @ Xa),
        (3, dB, s * G.T @ (X @ A.T), s * Ga.T @ (Xa @ Aa.T)),
    ]
    for times, found, exact, reach in cases:
        assert ((found.double() - exact).abs() <= ((1 + u) ** times - 1) * reach).all()


@pytest.mark.parametrize(("bias", "dtype"), [(True, torch.float32), (False, torch.bfloat16)])
@pytest.mark.parametrize("kind", BASES)
def test_a_new_adapter_changes_no_bit(kind, bias, dtype):
    base = base_of(kind, 20, 12, bias, dtype)
    layer = adapter_on(base, 4, 8.0, 0.3).train()
    layer.adapter.reset(base, torch.Generator().manual_seed(0))
    x = torch.randn(5, 20).to(dtype)
    assert layer.adapter.lora_A.abs().max() > 0
    assert torch.equal(layer(x), base(x))


@pytest.mark.parametrize("kind", BASES)
def test_beside_a_new_adapter_a_bias_in_bfloat16_is_rounded_apart(kind):
    base = base_of(kind, 20, 12, True, torch.bfloat16)
    layer = adapter_on(base, 4, 8.0, 0.3).train()
    layer.adapter.reset(base, torch.Generator().manual_seed(0))
    x = torch.randn(5, 20).bfloat16()
    assert torch.equal(layer(x), base_product(base, x, with_bias=False) + base.bias)


def test_the_factors_spell_the_update():
    layer = adapter_on(base_of("dense", 6, 5, True, torch.float32))
    x = torch.randn(3, 6)
    torch.testing.assert_close(layer.adapter.U @ layer.adapter.V.T, layer.delta())
    torch.testing.assert_close(layer(x), layer.base(x) + x @ layer.adapter.V @ layer.adapter.U.T)
    assert layer.adapter.U.shape == (5, 3)
    assert layer.adapter.V.shape == (6, 3)


def test_dropout_falls_on_the_adapters_input_only_and_only_in_training():
    layer = adapter_on(base_of("dense", 16, 8, True, torch.float64), dropout=0.5).double()
    x = torch.randn(7, 16, dtype=torch.float64, requires_grad=True)
    g = torch.randn(7, 8, dtype=torch.float64)

    def plain(x):
        update = F.dropout(x, 0.5) @ layer.adapter.lora_A.T @ layer.adapter.lora_B.T
        return layer.base(x) + layer.adapter.scaling * update

    inputs = [x, layer.adapter.lora_A, layer.adapter.lora_B]
    torch.manual_seed(4)
    expected = plain(x)
    wanted = torch.autograd.grad(expected, inputs, g)
    torch.manual_seed(4)
    value = layer.train()(x)
    found = torch.autograd.grad(value, inputs, g)
    torch.testing.assert_close(value, expected)
    for mine, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, other)
    assert torch.equal(layer.eval()(x), layer.eval()(x))
    assert not torch.equal(layer.train()(x), layer.train()(x))


@pytest.mark.parametrize("kind", BASES)
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_checkpointing_gives_the_same_gradients(kind, dropout):
    block = nn.Sequential(
        adapter_on(base_of(kind, 8, 8, True, torch.float32), dropout=dropout),
        nn.SiLU(),
        adapter_on(base_of(kind, 8, 8, False, torch.float32), dropout=dropout, seed=1),
    ).train()
    x = torch.randn(4, 8, requires_grad=True)
    inputs = [x, *adapter_parameters(block).values()]
    torch.manual_seed(5)
    plain = torch.autograd.grad(block(x).square().sum(), inputs)
    torch.manual_seed(5)
    again = torch.autograd.grad(checkpoint(block, x, use_reentrant=False).square().sum(), inputs)
    for mine, other in zip(again, plain, strict=True):
        assert torch.equal(mine, other)


@pytest.mark.parametrize("kind", BASES)
def test_autograd_keeps_the_input_and_what_is_r_wide_only(kind):
    layer = adapter_on(base_of(kind, 64, 64, True, torch.bfloat16), rank=2)
    x = torch.randn(3, 64).bfloat16().requires_grad_()
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor
    ):
        layer(x)
    assert sorted(tensor.numel() for tensor in kept) == [3 * 2, 2 * 64, 2 * 64, 3 * 64]
    assert x.data_ptr() in {tensor.data_ptr() for tensor in kept}


def test_the_weight_is_not_decoded_for_a_gradient_that_nobody_wants():
    base = base_of("nf4", 64, 64, False, torch.float32)
    layer = adapter_on(base)
    decoded: list[torch.dtype] = []
    original = base.dequantize
    base.dequantize = lambda dtype: decoded.append(dtype) or original(dtype)
    layer(torch.randn(3, 64)).sum().backward()
    assert len(decoded) == 1
    layer(torch.randn(3, 64, requires_grad=True)).sum().backward()
    assert len(decoded) == 3


def test_a_broadcast_gradient_and_a_strided_input_are_taken():
    layer = adapter_on(base_of("dense", 6, 5, True, torch.float64)).double()
    x = torch.randn(6, 4, 3, dtype=torch.float64).permute(2, 1, 0).requires_grad_()
    layer(x).sum().backward()
    lora = layer.adapter
    merged = layer.base.weight + lora.scaling * lora.lora_B @ lora.lora_A
    expected = merged.sum(0).expand(3, 4, 6)
    torch.testing.assert_close(x.grad, expected)


@pytest.fixture
def llama(tiny_llama):
    return AutoModelForCausalLM.from_pretrained(tiny_llama(layers=2)).eval()


def test_only_the_adapters_train_and_the_report_lists_them(llama):
    spec = AdapterSpec(rank=4, target_modules=["q_proj", "down_proj"])
    adapted = add_adapter(llama, spec, seed=0)
    assert adapted[0] == AdaptedModule("model.layers.0.self_attn.q_proj", 64, 64, 4, 512)
    assert adapted[1] == AdaptedModule("model.layers.0.mlp.down_proj", 160, 64, 4, 896)
    assert len(adapted) == 4
    trained = {
        name.replace("adapters.default.", "")
        for name, p in llama.named_parameters()
        if p.requires_grad
    }
    assert trained == adapter_parameters(llama).keys()


def test_factors_are_float32_on_a_bfloat16_base(tiny_llama):
    model = AutoModelForCausalLM.from_pretrained(tiny_llama(), dtype=torch.bfloat16)
    add_adapter(model, AdapterSpec(rank=4), seed=0)
    assert {p.dtype for p in adapter_parameters(model).values()} == {torch.float32}
    model.to(torch.bfloat16)
    assert {p.dtype for p in adapter_parameters(model).values()} == {torch.float32}
    ids = torch.arange(9)[None]
    model(input_ids=ids, labels=ids).loss.backward()
    gradients = [p.grad for name, p in adapter_parameters(model).items() if name.endswith("B")]
    assert all(g.dtype == torch.float32 and g.abs().max() > 0 for g in gradients)


def test_an_adapters_start_depends_on_the_seed_and_its_name_only(tiny_llama):
    def start(targets, seed):
        model = AutoModelForCausalLM.from_pretrained(tiny_llama(layers=2))
        add_adapter(model, AdapterSpec(rank=4, target_modules=targets), seed=seed)
        return {name: p.detach() for name, p in adapter_parameters(model).items()}

    some, all_ = start(["k_proj", "q_proj"], 1), start("all-linear", 1)
    assert len(some) == 8
    assert all(torch.equal(value, all_[name]) for name, value in some.items())
    layers = [f"model.layers.{i}.self_attn.q_proj.lora_A" for i in (0, 1)]
    assert not torch.equal(some[layers[0]], some[layers[1]])
    assert not torch.equal(some[layers[0]], start(["q_proj"], 2)[layers[0]])


def test_the_start_is_uniform_within_pefts_bounds(tiny_llama):
    model = AutoModelForCausalLM.from_pretrained(tiny_llama(layers=2))
    theirs = get_peft_model(copy.deepcopy(model), LoraConfig(r=32, target_modules=["up_proj"]))
    add_adapter(model, AdapterSpec(rank=32, target_modules=["up_proj"]), seed=3)
    bound = 1 / math.sqrt(64)
    for layer in adapted_layers(model).values():
        # Kolmogorov and Smirnov's distance to the uniform distribution, at p = 0.001.
        drawn = (layer.adapter.lora_A.detach().double().flatten() / bound + 1).sort().values / 2
        ranks = torch.arange(2048, dtype=torch.float64) / 2048
        assert float((drawn - ranks).abs().max()) < 1.95 / math.sqrt(2048)
        assert not layer.adapter.lora_B.any()
    for name, parameter in theirs.named_parameters():
        if "lora_A" in name:
            assert 0.99 * bound < float(parameter.detach().abs().max()) <= bound


def test_a_rank_above_a_matrix_is_refused_by_name_and_changes_nothing(llama):
    with pytest.raises(AdapterError, match=r"rank 40 .*layers\.0\.self_attn\.k_proj.*32 × 64"):
        add_adapter(llama, AdapterSpec(rank=40), seed=0)
    assert adapted_layers(llama) == {}
    assert all(p.requires_grad for p in llama.parameters())


def test_a_second_adapter_is_refused(llama):
    add_adapter(llama, AdapterSpec(rank=4, target_modules=["q_proj"]), seed=0)
    with pytest.raises(AdapterError, match="already"):
        add_adapter(llama, AdapterSpec(rank=4, target_modules=["k_proj"]), seed=0)


def test_a_disabled_adapter_is_the_base_and_comes_back(llama):
    ids = torch.arange(12)[None]
    with torch.no_grad():
        base = llama(input_ids=ids).logits
        add_adapter(llama, AdapterSpec(rank=4), seed=0)
        for parameter in adapter_parameters(llama).values():
            nn.init.normal_(parameter, std=0.1)
        tuned = llama(input_ids=ids).logits
        with adapter_disabled(llama):
            with adapter_disabled(llama):
                assert torch.equal(llama(input_ids=ids).logits, base)
            assert torch.equal(llama(input_ids=ids).logits, base)
        with pytest.raises(KeyError), adapter_disabled(llama):
            raise KeyError
        assert torch.equal(llama(input_ids=ids).logits, tuned)
    assert not torch.equal(base, tuned)


def loss_and_gradients(model, ids) -> tuple[float, torch.Tensor]:
    loss = model(input_ids=ids, labels=ids).loss
    gradients = torch.autograd.grad(loss, list(adapter_parameters(model).values()))
    return float(loss), torch.cat([gradient.double().flatten() for gradient in gradients])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_loss_and_gradients_of_qlora_are_those_of_the_dequantised_model_in_float64(
    tiny_llama, dtype
):
    folder, spec = tiny_llama(layers=2), AdapterSpec(rank=4, alpha=8)
    quantised = load_tiny(folder, "nf4").model
    dense = copy.deepcopy(quantised).double()
    for name, layer in list(dense.named_modules()):
        if isinstance(layer, QuantLinear):
            linear = nn.Linear(layer.in_features, layer.out_features, bias=False)
            linear.weight = nn.Parameter(layer.dequantize(torch.float64))
            dense.set_submodule(name, linear)
    for model in (quantised, dense):
        add_adapter(model, spec, seed=0)
        randomize(model)
    quantised.to(dtype)
    dense.double()
    ids = torch.arange(5, 60)[None]
    loss, gradient = loss_and_gradients(quantised, ids)
    exact_loss, exact = loss_and_gradients(dense, ids)
    # Some 25 roundings lie in series in each of two layers and their way back, each a relative
    # error of at most u of what passes; together at most 100 u, were they all to point one way.
    bound = 100 * torch.finfo(dtype).eps / 2
    assert abs(loss - exact_loss) <= bound * exact_loss
    assert float((gradient - exact).norm()) <= bound * float(exact.norm())
    assert float(exact.norm()) > 0.1
