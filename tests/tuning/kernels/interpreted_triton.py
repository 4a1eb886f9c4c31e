"""The Triton kernels, run by Triton's interpreter; `test_triton.py` starts this.

They stand in for those of the processor here (`ETUDE_TRITON=interpret`), so that what is checked is
what a GPU is given: each kernel against float64 or the reference, then layers and losses of models.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from test_patch import MODELS, adapted, counted, row
from torch.nn import functional as F

from etude.tuning.adapters.multi_adapter import adapter_parameters
from etude.tuning.config.recipe import Recipe
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.fusion.packed_attention import packed_rows
from etude.tuning.fusion.patch import fused_layers
from etude.tuning.kernels import fused, fused_reference, gpu_attention, ops, reference, triton
from etude.tuning.kernels.codebooks import CODEBOOKS
from etude.tuning.kernels.dropout import NO_DROPOUT, Dropout
from etude.tuning.kernels.heads import Heads
from etude.tuning.kernels.triton import decode, lora, loss, product, rows
from etude.tuning.objectives.cross_entropy import completion_loss, cross_entropy_sum
from etude.tuning.pipeline import tune
from etude.tuning.runs.folder import RunFolder

BF16, HALF, FLOAT = torch.bfloat16, torch.float16, torch.float32
DTYPES = [FLOAT, BF16, HALF]
BITS = {FLOAT: torch.int32, BF16: torch.int16, HALF: torch.int16, torch.float64: torch.int64}
# Sums are float32 of some hundred terms, of 2^-24 each; a result is rounded once: 2^-8 of a
# bfloat16 number and 2^-11 of a float16 one at most, and so of the norm.
TOLERANCE = {FLOAT: 1e-6, BF16: 2**-8, HALF: 2**-11}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def error(found, true) -> float:
    assert found.shape == true.shape
    return float((found.double() - true.double()).norm() / true.double().norm())


def test_the_interpreter_runs_the_kernels():
    assert triton.status().interpreted
    assert triton.takes(torch.ones(1))
    assert fused.how(torch.device("cpu")).startswith("kernels by Triton")


def coded(shape, block, kind, double, size=1.0):
    W = torch.randn(shape) * size
    codes, absmax = reference.quantize_4bit(W, block, kind)
    if not double:
        return codes, absmax, None, shape, block, kind
    quantized, scales, offset = reference.quantize_absmax(absmax)
    return codes, quantized, (scales, offset), shape, block, kind


def decoded(weight, dtype):
    codes, absmax, double, shape, block, kind = weight
    scales = absmax if double is None else reference.dequantize_absmax(absmax, *double)
    return reference.dequantize_4bit(codes, scales, shape, block, kind, dtype)


@given(
    count=st.one_of(st.integers(1, 5000), st.sampled_from([2048, 4096, 16384])),
    block=st.sampled_from([32, 64, 256, 4096]),
    kind=st.sampled_from(sorted(CODEBOOKS)),
    dtype=st.sampled_from([*DTYPES, torch.float64]),
    double=st.booleans(),
    size=st.sampled_from([1.0, 1e-39, 1e30]),
)
def test_decoding_has_the_bits_of_the_reference(count, block, kind, dtype, double, size):
    weight = coded((count,), block, kind, double, size)
    codes, absmax, pair, shape, *_ = weight
    found = decode.dequantize_4bit(codes, absmax, shape, block, kind, dtype, pair)
    true = decoded(weight, dtype)
    assert torch.equal(found.view(BITS[dtype]), true.view(BITS[dtype]))
    if pair is None:
        by_op = ops.dequantize_4bit(codes, absmax, shape, block, kind, dtype)
        assert torch.equal(by_op.view(BITS[dtype]), true.view(BITS[dtype]))
    else:
        scales = ops.dequantize_absmax(absmax, *pair)
        assert torch.equal(scales, reference.dequantize_absmax(absmax, *pair))


def test_decoding_nothing_and_what_lies_apart():
    empty = torch.empty(0, dtype=torch.uint8)
    none = decode.dequantize_4bit(empty, torch.empty(0), (0, 64), 64, "nf4", BF16)
    assert none.shape == (0, 64)
    codes, absmax, *_ = coded((256,), 64, "nf4", double=False)
    with pytest.raises(ValueError, match="contiguous"):
        decode.dequantize_4bit(codes[::2], absmax[:2], (128,), 64, "nf4", BF16)


# Shapes that no tile divides, blocks that run over the end of a row, one row, and several tiles.
SHAPES = [(1, 64, 64), (16, 33, 130), (63, 100, 96), (70, 150, 200)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("count", "out", "into"), SHAPES)
@pytest.mark.parametrize("double", [False, True])
def test_products_with_codes(dtype, count, out, into, double):
    weight = coded((out, into), 64, "nf4", double)
    W = decoded(weight, dtype).double()
    x, g = torch.randn(count, into).to(dtype), torch.randn(count, out).to(dtype)
    h, B = torch.randn(count, 5).to(dtype), torch.randn(out, 5)
    bias, more = torch.randn(out).to(dtype), torch.randn(count, out).to(dtype)
    assert error(product.coded_product(x, weight), x.double() @ W.T) < TOLERANCE[dtype]
    found = product.coded_product(x, weight, bias, more, (h, B, 0.7))
    low = 0.7 * h.double() @ B.to(dtype).double().T
    true = x.double() @ W.T + bias.double() + more.double() + low
    assert error(found, true) < TOLERANCE[dtype]
    assert error(product.coded_gradient(g, weight), g.double() @ W) < TOLERANCE[dtype]
    found = product.coded_gradient(g, weight, x)
    assert error(found, g.double() @ W + x.double()) < TOLERANCE[dtype]


def test_products_with_codes_that_are_refused():
    weight = coded((8, 64), 64, "nf4", double=True)
    with pytest.raises(ValueError, match="odd width"):
        product.coded_product(torch.ones(2, 7), coded((8, 7), 32, "nf4", double=False))
    with pytest.raises(ValueError, match="do not fit"):
        product.coded_product(torch.ones(2, 60), weight)
    with pytest.raises(ValueError, match="side by side"):
        product.coded_product(torch.ones(64, 2).T, weight)
    with pytest.raises(TypeError, match="float64"):
        product.coded_product(torch.ones(2, 64).double(), weight)
    assert product.coded_product(torch.ones(0, 64), weight).shape == (0, 8)
    assert product.coded_gradient(torch.ones(0, 8), weight).shape == (0, 64)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("count", "width", "rank"), [(1, 16, 1), (33, 130, 5), (150, 300, 70)])
def test_thin_products(dtype, count, width, rank):
    wide, thin = torch.randn(count, width).to(dtype), torch.randn(count, rank).to(dtype)
    A = torch.randn(rank, width)
    rounded = A.to(dtype).double()
    assert error(lora.down(wide, A, 0.5), 0.5 * wide.double() @ rounded.T) < TOLERANCE[dtype]
    # The transposed of a factor comes as a view.
    found = lora.down(wide, A.T.contiguous().T, 0.5)
    assert torch.equal(found, lora.down(wide, A, 0.5))
    assert error(lora.up(thin, A.T, 2.0), 2 * thin.double() @ rounded) < TOLERANCE[dtype]
    found = lora.across(thin, wide, 3.0)
    assert found.dtype == FLOAT
    assert error(found, 3 * thin.double().T @ wide.double()) < TOLERANCE[FLOAT]
    assert torch.equal(lora.across(thin, wide, 3.0), found)


def test_thin_products_of_rows_that_lie_apart_and_of_none():
    apart = torch.randn(20, 64).split([40, 24], 1)[0]
    A = torch.randn(4, 40)
    assert torch.equal(lora.down(apart, A), lora.down(apart.contiguous(), A))
    assert lora.down(apart[:0], A).shape == (0, 4)
    assert lora.up(torch.ones(0, 4), A.T).shape == (0, 40)
    assert not lora.up(torch.ones(3, 0), torch.ones(40, 0)).any()
    assert not lora.across(apart[:0], apart[:0]).any()
    with pytest.raises(ValueError, match="side by side"):
        lora.down(torch.ones(40, 3).T, A)
    with pytest.raises(TypeError, match="one dtype"):
        lora.across(torch.ones(3, 4).half(), torch.ones(3, 4))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [1, 17, 96, 4096])
def test_rms_norm_and_its_gradient(dtype, width):
    x, weight = torch.randn(5, width).to(dtype), (1 + torch.rand(width)).to(dtype)
    gradient, residual = torch.randn(5, width).to(dtype), torch.randn(5, width).to(dtype)
    y, rstd = fused.rms_norm(x, weight, 1e-5)
    wide = x.double().requires_grad_()
    true = weight.double() * wide * (wide.square().mean(1, keepdim=True) + 1e-5).rsqrt()
    true.backward(gradient.double())
    assert error(y, true.detach()) < TOLERANCE[dtype]
    both = fused.rms_norm_backward(gradient, x, weight, rstd, residual)
    assert error(both, wide.grad + residual.double()) < TOLERANCE[dtype]
    if width > 1:  # of one number the gradient is a difference that leaves nothing
        alone = fused.rms_norm_backward(gradient, x, weight, rstd, None)
        assert error(alone, wide.grad) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("heads", "width"), [(1, 16), (3, 48), (5, 80), (32, 128)])
def test_rotation_in_place_and_back(dtype, heads, width):
    count = 4
    # Rows lie apart, as they do in what several projections write together.
    x = torch.randn(count, heads * width + 8).to(dtype)[:, : heads * width]
    angle = torch.randn(count, width)
    cosine, sine = angle.cos(), angle.sin()
    wide = x.double().view(count, heads, width).requires_grad_()
    turned = torch.cat([-wide[..., width // 2 :], wide[..., : width // 2]], -1)
    true = wide * cosine[:, None].double() + turned * sine[:, None].double()
    before = x.clone()
    assert fused.rotate(x, cosine, sine, heads) is x
    assert error(x, true.flatten(1).detach()) < TOLERANCE[dtype]
    gradient = torch.randn(count, heads * width).to(dtype)
    true.backward(gradient.double().view_as(true))
    back = fused.rotate(gradient, cosine, sine, heads, backwards=True)
    assert error(back, wide.grad.flatten(1)) < TOLERANCE[dtype]
    again = fused_reference.rotate(before, cosine, sine, heads)
    assert error(x, again) < TOLERANCE[dtype]


def test_rotation_refuses_angles_and_heads_that_do_not_fit():
    x, angle = torch.ones(2, 30), torch.ones(2, 10)
    with pytest.raises(ValueError, match="even width"):
        rows.rotate(x, angle, angle, 4)
    with pytest.raises(ValueError, match="angles"):
        rows.rotate(x, angle[:, :5], angle, 3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (3, 333), (2, 1024)])
def test_swiglu_and_its_gradients(dtype, shape):
    gate, up = (4 * torch.randn(shape)).to(dtype), torch.randn(shape).to(dtype)
    gradient = torch.randn(shape).to(dtype)
    g, u = gate.double().requires_grad_(), up.double().requires_grad_()
    true = F.silu(g) * u
    true.backward(gradient.double())
    y = fused.swiglu(gate, up)
    assert error(y, true.detach()) < TOLERANCE[dtype]
    assert torch.equal(fused.swiglu_backward(gradient, gate, up), y)
    assert error(gate, g.grad) < TOLERANCE[dtype]
    assert error(up, u.grad) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dropout", [NO_DROPOUT, Dropout(0.3, seed=(7 << 45) + (3 << 30) + 5)])
@pytest.mark.parametrize("width", [17, 384])
def test_the_norm_of_a_sum_and_its_gradients(dtype, dropout, width):
    y, x, g, also = (torch.randn(5, width).to(dtype) for _ in range(4))
    weight, bias = (1 + torch.rand(width)).to(dtype), torch.randn(width).to(dtype)
    sums = [y.clone(), y.clone()]
    given = x, weight, bias, 1e-12, dropout
    found, true = fused.add_norm(sums[0], *given), fused_reference.add_norm(sums[1], *given)
    assert error(sums[0], sums[1]) < TOLERANCE[dtype]
    for one, other in zip(found, true, strict=True):
        assert error(one, other) < TOLERANCE[dtype]
    assert error(fused.layer_norm(sums[0], weight, bias, *found[1:]), found[0]) < TOLERANCE[dtype]
    for more in (None, also):
        given = g, more, sums[0], weight, *found[1:], dropout
        for one, other in zip(
            fused.add_norm_backward(*given), fused_reference.add_norm_backward(*given), strict=True
        ):
            assert error(one, other) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (3, 1000)])
def test_gelu_and_its_gradient(dtype, shape):
    g, gradient = (3 * torch.randn(shape)).to(dtype), torch.randn(shape).to(dtype)
    wide = g.double().requires_grad_()
    true = F.gelu(wide)
    true.backward(gradient.double())
    assert error(fused.gelu(g), true.detach()) < TOLERANCE[dtype]
    dg = g.clone()
    assert error(fused.gelu_backward(gradient, dg), true.detach()) < TOLERANCE[dtype]
    assert error(dg, wide.grad) < TOLERANCE[dtype]


def test_swiglu_far_from_zero_neither_overflows_nor_invents():
    gate = torch.tensor([[-1e30, -200.0, -88.0, -20.0, 0.0, 20.0, 88.0, 200.0, 1e30]])
    found = rows.swiglu(gate, torch.ones_like(gate))
    torch.testing.assert_close(found, F.silu(gate.double()).float(), rtol=1e-6, atol=1e-30)
    nothing = torch.full((1, 1), float("nan"), dtype=BF16)
    assert rows.swiglu(nothing, torch.ones_like(nothing)).isnan().all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [2, 97, 4096, 5001])
def test_cross_entropy_and_its_gradient_in_place(dtype, width):
    logits = (5 * torch.randn(6, width)).to(dtype)
    targets = torch.randint(0, width, (6,))
    wide = logits.double().requires_grad_()
    true = F.cross_entropy(wide, targets, reduction="none")
    true.sum().backward()
    copy_ = logits.clone()
    found = fused.cross_entropy(copy_, targets, gradient=False)
    # A difference of float32 numbers of about 20: 2e-6 absolute each, whatever the dtype.
    torch.testing.assert_close(found.double(), true.detach(), rtol=1e-6, atol=4e-6)
    assert torch.equal(copy_, logits)
    fused.cross_entropy(copy_, targets, gradient=True)
    # e^(z - log Σ e^z): the exponent is off by the rounding of its two terms, here 20 · 2^-24.
    assert error(copy_, wide.grad) < max(TOLERANCE[dtype], 4e-6)


def test_cross_entropy_of_logits_that_are_not_finite():
    for bad in (float("nan"), float("inf")):
        logits = torch.zeros(1, 5000)
        logits[0, 7] = bad
        assert not loss.cross_entropy(logits, torch.tensor([3]), gradient=False).isfinite().any()
    masked = torch.full((1, 5000), float("-inf"))
    masked[0, 4500:] = 0.0  # the first piece of the row has nothing
    found = loss.cross_entropy(masked, torch.tensor([4600]), gradient=True)
    assert found.item() == pytest.approx(torch.tensor(500.0).log().item(), rel=1e-6)
    assert masked[0, 0] == 0


@pytest.mark.parametrize("function", ["rms_norm", "swiglu", "cross_entropy"])
def test_rows_that_lie_apart_are_refused_and_none_are_nothing(function):
    apart, whole = torch.ones(4, 64).T, torch.ones(64, 4)
    calls = {
        "rms_norm": lambda x: rows.rms_norm(x, torch.ones(4), 1e-5),
        "swiglu": lambda x: rows.swiglu(x, whole[: len(x)]),
        "cross_entropy": lambda x: loss.cross_entropy(
            x, torch.zeros(len(x), dtype=torch.long), gradient=True
        ),
    }
    with pytest.raises(ValueError, match="contiguous"):
        calls[function](apart)
    with pytest.raises(TypeError, match="float64"):
        calls[function](whole.double())
    calls[function](whole[:0])


def attended(q, k, v, lengths, heads: Heads):
    """Attend in float64 with all scores written out, segment by segment."""
    outputs, start = [], 0
    for n in lengths:
        parts = [t[start : start + n].view(n, -1, heads.width).transpose(0, 1) for t in (q, k, v)]
        query, key, value = (p.repeat_interleave(heads.query // len(p), 0) for p in parts)
        behind = torch.arange(n)[:, None] - torch.arange(n)
        seen = (behind >= 0) & (behind < (heads.window or n)) | (not heads.causal)
        scores = (query @ key.mT * heads.scale).masked_fill(~seen, float("-inf"))
        outputs.append((scores.softmax(-1) @ value).transpose(0, 1).flatten(1))
        start += n
    return torch.cat(outputs)


@pytest.mark.parametrize(("window", "causal"), [(None, True), (1, True), (7, True), (None, False)])
def test_attention_by_pytorch_and_its_gradients(window, causal):
    heads, lengths = Heads(6, 2, 16, 0.2, window=window, causal=causal), [13, 1, 20]
    q, g = torch.randn(34, 96), torch.randn(34, 96)
    k, v = torch.randn(34, 64).split(32, 1)
    leaves = [t.double().requires_grad_() for t in (q, k, v)]
    true = attended(*leaves, lengths, heads)
    true.backward(g.double())
    out, log_norm = fused.attention(q, k, v, lengths, heads)
    assert error(out, true.detach()) < 2e-6
    found = fused.attention_backward(g, q, k, v, out, log_norm, lengths, heads)
    for one, leaf in zip(found, leaves, strict=True):
        assert one.is_contiguous()
        if leaf.grad.norm() > 1e-9:
            assert error(one, leaf.grad) < 5e-6
        else:  # a query that sees one key has no gradient
            assert one.abs().max() < 1e-5


@pytest.mark.parametrize(("window", "causal"), [(None, True), (7, True), (None, False)])
def test_flash_attention_is_called_as_pytorch_declares_it(window, causal):
    """No GPU, no numbers: but shapes, and that every argument has its place."""
    heads, lengths = Heads(6, 2, 16, 0.2, window=window, causal=causal), [13, 1, 20]
    q, g = (torch.empty(34, 96, dtype=BF16, device="meta") for _ in range(2))
    k, v = (torch.empty(34, 32, dtype=BF16, device="meta") for _ in range(2))
    out, log_norm = gpu_attention.flash_attention(q, k, v, lengths, heads)
    assert (out.shape, log_norm.shape) == (q.shape, (6, 34))
    found = gpu_attention.flash_attention_backward(g, q, k, v, out, log_norm, lengths, heads)
    assert [t.shape for t in found] == [q.shape, k.shape, v.shape]


def loss_and_gradients(model, *, fuse: bool):
    model.zero_grad()
    trained = adapter_parameters(model)
    with packed_rows(model):
        if fuse:
            with fused_layers(model) as how, counted() as count:
                total = completion_loss(model, **row())
                total.backward()
            assert "Triton" in str(how)
            assert len(count) == 3
        else:
            total = completion_loss(model, **row())
            total.backward()
    return total.detach(), torch.cat([p.grad.flatten() for p in trained.values()])


def true_loss_and_gradients(model, monkeypatch):
    """Return the model's own in float64, which the kernels do not take."""
    wide = copy.deepcopy(model).double()
    for module in wide.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, torch.nn.Parameter(parameter.double()))
    with monkeypatch.context() as without:
        without.setattr(triton, "takes", lambda _: False)
        without.setattr("etude.tuning.kernels.gpu.takes", lambda _: False)
        return loss_and_gradients(wide, fuse=False)


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("llama with biases", marks=pytest.mark.slow),
        pytest.param("mistral", marks=pytest.mark.slow),
        "qwen2",
    ],
)
def test_a_model_through_the_kernels_has_the_loss_and_gradients_of_its_own_code(kind, monkeypatch):
    model = adapted(MODELS[kind])
    total, gradient = true_loss_and_gradients(model, monkeypatch)
    found, found_gradient = loss_and_gradients(model, fuse=True)
    # float32 through three layers, as the processor's kernels are held to.
    assert error(found, total) < 1e-6
    assert error(found_gradient, gradient) < 1e-5


@pytest.mark.parametrize("double", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_quantised_model_through_the_kernels(double, monkeypatch):
    quant = QuantSpec(kind="nf4", block=32, double=double)
    model = adapted(MODELS["qwen2"], quant=quant)
    total, gradient = true_loss_and_gradients(model, monkeypatch)
    found, found_gradient = loss_and_gradients(model, fuse=True)
    assert error(found, total) < 1e-6
    assert error(found_gradient, gradient) < 1e-5
    # The row has 64 tokens: products without a decoded weight. With fewer allowed, it is decoded.
    monkeypatch.setattr(product, "FEW_ROWS", 0)
    other, other_gradient = loss_and_gradients(model, fuse=True)
    assert error(other, total) < 1e-6
    assert error(other_gradient, gradient) < 1e-5
    assert not torch.equal(other_gradient, found_gradient), "two ways of adding up"


@pytest.mark.parametrize("dtype", [BF16, pytest.param(HALF, marks=pytest.mark.slow)])
def test_in_16_bits_the_kernels_are_no_further_from_the_truth_than_plain_pytorch(
    dtype, monkeypatch
):
    far = []
    for draw in range(4):
        model = adapted(MODELS["llama"], seed=draw).to(dtype)
        _, gradient = true_loss_and_gradients(model, monkeypatch)
        _, kernels = loss_and_gradients(model, fuse=True)
        with monkeypatch.context() as without:
            without.setattr(triton, "takes", lambda _: False)
            without.setattr("etude.tuning.kernels.gpu.takes", lambda _: False)
            _, plain = loss_and_gradients(model, fuse=False)
        far.append([error(kernels, gradient), error(plain, gradient)])
    mean = torch.tensor(far).mean(0)
    # A mean over four draws of an error that is one draw of rounding each: a sixth is its noise.
    assert mean[0] < 1.17 * mean[1]


def test_what_stands_in_for_the_kernels_where_triton_is_not_there(monkeypatch):
    """A GPU without Triton: fused layers by plain PyTorch."""
    model = adapted(MODELS["llama"], quant=QuantSpec(kind="nf4", block=32))
    total, gradient = true_loss_and_gradients(model, monkeypatch)
    monkeypatch.setattr("etude.tuning.kernels.gpu.takes", lambda _: False)
    found, found_gradient = loss_and_gradients(model, fuse=True)
    assert error(found, total) < 1e-6
    assert error(found_gradient, gradient) < 1e-5


def test_the_chunked_loss_of_more_positions_than_a_chunk():
    hidden, weight = torch.randn(300, 24, requires_grad=True), torch.randn(50, 24)
    targets = torch.randint(0, 50, (300,))
    total = cross_entropy_sum(hidden, weight, targets)
    total.backward()
    wide = hidden.detach().double().requires_grad_()
    true = F.cross_entropy(wide @ weight.double().T, targets, reduction="sum")
    true.backward()
    assert error(total.detach(), true.detach()) < 1e-6
    assert error(hidden.grad, wide.grad) < 4e-6


def test_a_whole_qlora_run_has_the_losses_and_answers_of_the_processors_kernels(
    tiny_recipe, tmp_path, monkeypatch
):
    """Evaluation, two optimiser steps and generation, all of it by Triton's kernels."""
    fields = tiny_recipe(
        quant={"kind": "nf4"},
        model={"device": "cpu"},
        data={"eval_fraction": 0.05},
        train={"max_steps": 2, "batch_samples": 2},
        eval={"generate": 1, "max_new_tokens": 2},
    )
    used: list[str] = []
    for module, name in ((decode, "dequantize_4bit"), (rows, "rms_norm"), (loss, "cross_entropy")):
        kernel = getattr(module, name)

        def noted(*given, kernel=kernel, name=name, **options):
            used.append(name)
            return kernel(*given, **options)

        monkeypatch.setattr(module, name, noted)
    run = tune(Recipe.parse(fields), base=tmp_path / "triton")
    assert set(used) == {"dequantize_4bit", "rms_norm", "cross_entropy"}

    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(fields), "utf-8")
    switches = ("ETUDE_TRITON", "TRITON_INTERPRET")
    subprocess.run(
        [sys.executable, "-m", "etude", "tune", recipe, "--runs", tmp_path / "cpu", "--quiet"],
        env={name: value for name, value in os.environ.items() if name not in switches},
        check=True,
    )
    (other,) = (tmp_path / "cpu").glob("tiny-*")
    found, known = (
        [record["loss"] for record in RunFolder.open(folder).read_metrics() if "loss" in record]
        for folder in (run.folder, other)
    )
    summary = json.loads((other / "summary.json").read_text("utf-8"))
    # float32 sums in another order: relative 1e-6, and AdamW's first steps are the signs of
    # gradients, of which those near to zero may differ.
    assert found == pytest.approx(known, rel=1e-4)
    assert run.summary["eval_loss_before"] == pytest.approx(summary["eval_loss_before"], rel=1e-5)
    assert run.summary["eval_loss"] == pytest.approx(summary["eval_loss"], rel=1e-4)
    answers = [
        (folder / "samples.jsonl").read_text("utf-8").splitlines() for folder in (run.folder, other)
    ]
    assert answers[0] == answers[1]
