"""Quantised linears: the codes of a whole weight, products and gradients of its decoded weight."""

from __future__ import annotations

import copy
import gc
import io
import weakref
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from etude.core.errors import ModelError
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.quant import build
from etude.tuning.quant.linear import dense_weights

KINDS = ("nf4", "fp4", "int4", "int8")
BLOCKS = (32, 64, 128, 256, 512, 1024, 2048, 4096)


def layer_of(out_features, in_features, dtype=torch.float32, *, bias=False, seed=0, **quant):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(out_features, in_features, generator=generator) * 0.1
    offset = torch.randn(out_features, generator=generator) if bias else None
    return build.quantized(weight, QuantSpec(**quant), dtype, offset), weight


def assert_same_state(left: nn.Module, right: nn.Module) -> None:
    ours, theirs = left.state_dict(), right.state_dict()
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert value.dtype == theirs[name].dtype
        assert torch.equal(value, theirs[name]), name


@given(
    out_features=st.integers(1, 40),
    in_features=st.integers(1, 200),
    block=st.sampled_from(BLOCKS),
    double=st.booleans(),
    kind=st.sampled_from(KINDS),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    cuts=st.lists(st.integers(1, 40), max_size=6),
)
def test_rows_that_come_in_pieces_give_the_bytes_of_the_whole(
    out_features, in_features, block, double, kind, dtype, cuts
):
    quant = QuantSpec(kind=kind, block=block, double=double)
    weight = torch.randn(out_features, in_features).to(dtype)
    whole = build.quantized(weight, quant, torch.float32)
    pieces = build.empty_quantized(in_features, out_features, quant, torch.float32)
    edges = sorted({0, out_features, *(cut for cut in cuts if cut < out_features)})
    for start, stop in pairwise(edges):
        rows = weight[start:stop].clone()
        pieces.fill_rows(start, rows)
        rows.fill_(float("nan"))  # the reader may use its buffer again
    pieces.finish()
    assert_same_state(whole, pieces)


@pytest.mark.parametrize("kind", KINDS)
def test_a_weight_with_rows_missing_is_no_weight(kind):
    layer = build.empty_quantized(10, 4, QuantSpec(kind=kind), torch.float32)
    layer.fill_rows(0, torch.ones(3, 10))
    with pytest.raises(ModelError, match="3 of 4 rows"):
        layer.finish()
    with pytest.raises(ModelError, match="3 of 4 rows"):
        layer(torch.ones(1, 10))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("start", "count"), [(1, 1), (3, 1), (2, 3), (2, 0)])
def test_rows_out_of_order_are_refused(start, count, kind):
    layer = build.empty_quantized(10, 4, QuantSpec(kind=kind), torch.float32)
    layer.fill_rows(0, torch.ones(2, 10))
    with pytest.raises(ValueError, match="do not follow row 1"):
        layer.fill_rows(start, torch.ones(count, 10))


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_that_is_not_finite_is_refused_by_its_place_in_the_weight(kind):
    layer = build.empty_quantized(10, 4, QuantSpec(kind=kind), torch.float32)
    layer.fill_rows(0, torch.ones(2, 10))
    rows = torch.ones(2, 10)
    rows[1, 7] = float("nan")
    with pytest.raises(ModelError, match=r"\[3, 7\]"):
        layer.fill_rows(2, rows)


@given(
    shape=st.tuples(st.integers(1, 30), st.integers(1, 70)),
    batch=st.lists(st.integers(1, 4), min_size=0, max_size=2),
    block=st.sampled_from(BLOCKS),
    double=st.booleans(),
    kind=st.sampled_from(KINDS),
    bias=st.booleans(),
)
def test_product_and_gradient_are_those_of_the_decoded_weight_in_float64(
    shape, batch, block, double, kind, bias
):
    layer, _ = layer_of(*shape, torch.float64, bias=bias, kind=kind, block=block, double=double)
    weight = layer.dequantize(torch.float64)
    x = torch.randn(*batch, shape[1], dtype=torch.float64, requires_grad=True)
    g = torch.randn(*batch, shape[0], dtype=torch.float64)
    y = layer(x)
    (dx,) = torch.autograd.grad(y, x, g)
    # Sums of up to 70 products in float64, in any order: 70 · 1.1e-16 of their magnitudes.
    bound = 70 * 1.2e-16
    expected = F.linear(x, weight, layer.bias)
    reach = F.linear(x.abs(), weight.abs(), None if layer.bias is None else layer.bias.abs())
    assert ((y - expected).abs() <= bound * reach).all()
    assert ((dx - g @ weight).abs() <= bound * (g.abs() @ weight.abs())).all()


@pytest.mark.parametrize("kind", KINDS)
def test_first_and_second_derivatives_are_the_numerical_ones(kind):
    layer, _ = layer_of(5, 7, torch.float64, bias=True, kind=kind)
    x = torch.randn(2, 7, dtype=torch.float64, requires_grad=True)

    def squared(value):
        return layer(value).square()

    assert torch.autograd.gradcheck(squared, (x,))
    assert torch.autograd.gradgradcheck(squared, (x,))


def test_bfloat16_product_is_within_its_rounding_of_the_float64_one():
    layer, _ = layer_of(96, 256, torch.bfloat16, bias=True)
    x = torch.randn(7, 256).bfloat16()
    weight, bias = layer.dequantize(torch.float64), layer.bias.double()
    exact = F.linear(x.double(), weight, bias)
    reach = F.linear(x.double().abs(), weight.abs(), bias.abs())
    # Weights rounded to bfloat16 (half a unit of 2^-8 each), sums in float32, one last rounding.
    error = (layer(x).double() - exact).abs()
    assert layer(x).dtype == torch.bfloat16
    assert (error <= (2**-9 + 256 * 2**-24) * reach + 2**-9 * exact.abs()).all()


def test_the_weight_has_no_gradient_and_is_no_parameter():
    layer, _ = layer_of(6, 10, bias=True)
    assert list(layer.parameters()) == []
    assert not layer(torch.randn(2, 10)).requires_grad


def test_nothing_of_the_size_of_the_weight_waits_for_the_backward_pass():
    layer, _ = layer_of(64, 64)
    decoded: list[weakref.ref] = []
    original = layer.dequantize

    def watched(dtype):
        weight = original(dtype)
        decoded.append(weakref.ref(weight))
        return weight

    layer.dequantize = watched
    saved: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor
    ):
        y = layer(torch.randn(3, 64, requires_grad=True)).sum()
    gc.collect()
    assert saved == []
    assert [reference() for reference in decoded] == [None]
    y.backward()
    assert len(decoded) == 2


def test_checkpointing_repeats_the_product():
    layer, _ = layer_of(16, 16)
    x = torch.randn(3, 16, requires_grad=True)
    (plain,) = torch.autograd.grad(layer(layer(x).relu()).sum(), x)
    y = checkpoint(lambda value: layer(layer(value).relu()), x, use_reentrant=False)
    (again,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(plain, again)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("double", [True, False])
def test_state_survives_saving_and_copying(double, kind):
    layer, _ = layer_of(30, 70, torch.bfloat16, bias=True, double=double, kind=kind)
    buffer = io.BytesIO()
    torch.save(layer.state_dict(), buffer)
    buffer.seek(0)
    quant = QuantSpec(kind=kind, double=double)
    bias = torch.zeros(30, dtype=torch.bfloat16)
    other = build.quantized(torch.zeros(30, 70), quant, torch.bfloat16, bias)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    x = torch.randn(2, 70).bfloat16()
    assert_same_state(layer, other)
    assert torch.equal(layer(x), other(x))
    assert torch.equal(layer(x), copy.deepcopy(layer)(x))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_moving_the_model_to_a_dtype_changes_the_arithmetic_but_not_the_codes(dtype, kind):
    layer, _ = layer_of(30, 70, bias=True, kind=kind)
    before = {name: value.clone() for name, value in layer.state_dict().items() if name != "bias"}
    model = nn.Sequential(layer, nn.Linear(30, 2)).to(dtype)
    assert layer.compute_dtype == layer.bias.dtype == dtype
    for name, value in before.items():
        assert torch.equal(layer.state_dict()[name], value)
        assert layer.state_dict()[name].dtype == value.dtype
    assert model(torch.randn(3, 70, dtype=dtype)).dtype == dtype


def test_dense_weights_gives_the_same_bits_and_lets_go_of_them():
    layer, _ = layer_of(64, 64, torch.bfloat16)
    model = nn.Sequential(layer, nn.ReLU())
    x = torch.randn(5, 64).bfloat16()
    plain = model(x)
    with torch.inference_mode(), dense_weights(model):
        assert torch.equal(model(x), plain)
        kept = weakref.ref(layer.weight_for_compute())
        assert layer.weight_for_compute() is kept()
    gc.collect()
    assert kept() is None
    with pytest.raises(KeyError), dense_weights(model):
        layer(x)
        raise KeyError
    assert layer.weight_for_compute() is not layer.weight_for_compute()
    x.requires_grad_()
    layer(x).sum().backward()
    assert x.grad is not None


def test_decoded_weights_lie_in_one_piece_of_memory_whatever_their_kinds_and_sizes():
    nf4, int8 = (layer_of(48, 64, torch.bfloat16, kind=kind)[0] for kind in ("nf4", "int8"))
    other, _ = layer_of(16, 48, torch.float32, bias=True)
    model = nn.ModuleList([nf4, int8, other])
    plain = [layer.dequantize(layer.compute_dtype) for layer in (nf4, int8, other)]
    with torch.inference_mode(), dense_weights(model):
        weights = [layer.weight_for_compute() for layer in (nf4, int8, other)]
        for weight, alone in zip(weights, plain, strict=True):
            assert weight.dtype == alone.dtype and torch.equal(weight, alone)
            assert weight.is_contiguous()
        pieces = [weight.untyped_storage().data_ptr() for weight in weights]
        assert pieces[0] == pieces[1] != pieces[2]


@pytest.mark.parametrize("kind", ["none", "native"])
def test_what_does_not_quantise_makes_no_layer(kind):
    with pytest.raises(ValueError, match=kind):
        build.quantized(torch.ones(4, 4), QuantSpec(kind=kind), torch.float32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("double", [True, False])
def test_the_size_is_known_before_anything_is_allocated(double, kind):
    quant = QuantSpec(kind=kind, double=double, block=32)
    layer, _ = layer_of(37, 71, kind=kind, double=double, block=32)
    assert build.quantized_bytes(71, 37, quant) == layer.quantized_bytes
    assert layer.quantized_bytes == sum(buffer.nbytes for buffer in layer.buffers())


@pytest.mark.parametrize("kind", KINDS)
def test_overwriting_is_quantising_anew(kind):
    layer, weight = layer_of(12, 40, kind=kind)
    layer.overwrite(3 * weight.flip(0))
    assert_same_state(
        layer, build.quantized(3 * weight.flip(0), QuantSpec(kind=kind), torch.float32)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_codes_of_another_program_are_checked_before_they_are_taken(kind):
    layer, _ = layer_of(12, 40, kind=kind)
    other = build.layer_class(layer.spec).empty(40, 12, layer.spec, torch.float32)
    tensors = {name: value.clone() for name, value in layer.named_buffers()}
    with pytest.raises(ModelError, match="expected"):
        other.fill_codes({**tensors, "codes": tensors["codes"].flatten()[:-1]})
    bad = next(n for n, v in reversed(tensors.items()) if v.is_floating_point())
    with pytest.raises(ModelError, match="not finite"):
        other.fill_codes({**tensors, bad: tensors[bad] * float("nan")})
    other.fill_codes(tensors)
    assert_same_state(layer, other)
    other.finish()
