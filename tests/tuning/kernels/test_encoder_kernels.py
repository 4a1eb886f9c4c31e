"""Kernels of encoder layers against float64 PyTorch: norms of sums, GELU, dropout."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from etude.tuning.kernels import fused, fused_reference, gpu_attention, native
from etude.tuning.kernels.dropout import NO_DROPOUT, Dropout
from etude.tuning.kernels.heads import Heads

BF16, FLOAT = torch.bfloat16, torch.float32
CPU = torch.device("cpu")

pytestmark = pytest.mark.skipif(
    not native.status().ready, reason=f"no C++ kernels here: {native.status().reason}"
)

# float32: some tens of operations of 2^-24 each. bfloat16: arithmetic is float32 and the result is
# rounded once: 2^-8 of each number at most, and so of the norm. The norm of a sum is that of the
# rounded sum, 2^-8 more.
TOLERANCE = {FLOAT: 1e-6, BF16: 2**-8}
TWICE = {FLOAT: 1e-6, BF16: 2**-7}
DROPOUTS = {"none": NO_DROPOUT, "a third": Dropout(1 / 3, seed=(5 << 40) + 77)}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def error(found: torch.Tensor, true: torch.Tensor) -> float:
    return float((found.double() - true.detach()).norm() / true.detach().double().norm())


def summands(dtype, rows=9, width=100):
    y, x, g, also = (3 * torch.randn(rows, width) + 1 for _ in range(4))
    weight, bias = 1 + torch.rand(width), torch.randn(width)
    return [t.to(dtype) for t in (y, x, g, also, weight, bias)]


@pytest.mark.parametrize("dropout", DROPOUTS.values(), ids=DROPOUTS)
@pytest.mark.parametrize("dtype", [FLOAT, BF16])
@pytest.mark.parametrize("width", [16, 17, 48, 100, 384])
def test_the_norm_of_a_sum_and_its_gradients(dtype, width, dropout):
    y, x, g, also, weight, bias = summands(dtype, width=width)
    wide = [t.double().requires_grad_() for t in (y, x)]
    kept = dropout.factors(0, *y.shape, CPU).double()
    true = F.layer_norm(wide[1] + kept * wide[0], (width,), weight.double(), bias.double(), 1e-12)
    true.backward(g.double() + also.double())
    s = y.clone()
    z, mean, rstd = fused.add_norm(s, x, weight, bias, 1e-12, dropout)
    assert error(z, true) < TWICE[dtype]
    assert torch.equal(fused.layer_norm(s, weight, bias, mean, rstd), z)
    dx, dy = fused.add_norm_backward(g, also, s, weight, mean, rstd, dropout)
    assert error(dx, wide[1].grad) < TWICE[dtype]
    assert error(dy, wide[0].grad) < TWICE[dtype]
    assert (dx is dy) == (not dropout.on)
    alone, _ = fused.add_norm_backward(g, None, s, weight, mean, rstd, dropout)
    zero, _ = fused.add_norm_backward(g, torch.zeros_like(g), s, weight, mean, rstd, dropout)
    assert torch.equal(alone, zero)


@pytest.mark.parametrize("dropout", DROPOUTS.values(), ids=DROPOUTS)
@pytest.mark.parametrize("dtype", [FLOAT, BF16])
def test_the_reference_of_a_norm_of_a_sum_is_the_kernel(dtype, dropout):
    y, x, g, also, weight, bias = summands(dtype)
    sums = [y.clone(), y.clone()]
    given = [x, weight, bias, 1e-12, dropout]
    one, other = (
        by.add_norm(s, *given) for by, s in zip((fused, fused_reference), sums, strict=True)
    )
    assert error(sums[0], sums[1].double()) < TOLERANCE[dtype]
    for a, b in zip(one, other, strict=True):
        assert error(a, b.double()) < TOLERANCE[dtype]
    for a, b in zip(
        fused.add_norm_backward(g, also, sums[0], weight, *one[1:], dropout),
        fused_reference.add_norm_backward(g, also, sums[0], weight, *one[1:], dropout),
        strict=True,
    ):
        assert error(a, b.double()) < TOLERANCE[dtype]


@pytest.mark.parametrize("by", [fused, fused_reference], ids=["compiled", "reference"])
@pytest.mark.parametrize("dtype", [FLOAT, BF16])
@pytest.mark.parametrize("count", [1, 15, 16, 333])
def test_gelu_and_its_gradient(by, dtype, count):
    g, gradient = (3 * torch.randn(1, count)).to(dtype), torch.randn(1, count).to(dtype)
    wide = g.double().requires_grad_()
    true = F.gelu(wide)
    true.backward(gradient.double())
    assert error(by.gelu(g), true) < TOLERANCE[dtype]
    dg = g.clone()
    assert torch.equal(by.gelu_backward(gradient, dg), by.gelu(g))
    assert error(dg, wide.grad) < TOLERANCE[dtype]


def test_gelu_keeps_the_digits_of_its_tails():
    g = torch.linspace(-12, 12, 4801)[None]
    wide = g.double()
    true = wide * torch.special.erfc(-wide * 0.5**0.5) / 2  # F.gelu's 1 + erf has no digits here
    # Φ within 1.2e-7 of itself, and its exponent, up to 72, by 2^-24 of that: 4e-6.
    torch.testing.assert_close(fused.gelu(g).double(), true, rtol=8e-6, atol=1e-36)
    far = torch.tensor([[-1e30, -200.0, 0.0, 200.0, 1e30]])
    assert torch.equal(fused.gelu(far), torch.tensor([[0.0, 0.0, 0.0, 200.0, 1e30]]))
    assert fused.gelu(torch.full((1, 1), float("nan"))).isnan().all()


def test_dropout_drops_the_share_that_it_says_and_no_pattern():
    dropout = Dropout(0.1, seed=123456789)
    kept = dropout.factors(0, 400, 1000, CPU)
    dropped = (kept == 0).double()
    # 400,000 draws: a deviation of 0.1 is 5e-4. Rows, columns: 0.0095 and 0.015, 5 of them.
    assert abs(float(dropped.mean()) - 0.1) < 2.5e-3
    assert float((dropped.mean(1) - 0.1).abs().max()) < 0.0475
    assert float((dropped.mean(0) - 0.1).abs().max()) < 0.075
    normal = (dropped - 0.1) / 0.3
    # Neighbours in rows and columns, and other seeds, are not correlated: 1/√400,000 = 1.6e-3 each.
    other = ((Dropout(0.1, seed=123456790).factors(0, 400, 1000, CPU) == 0).double() - 0.1) / 0.3
    for one, two in (
        (normal[1:], normal[:-1]),
        (normal[:, 1:], normal[:, :-1]),
        (normal[1:, 1:], normal[:-1, :-1]),
        (normal, other),
    ):
        assert abs(float((one * two).mean())) < 8e-3
    assert float(kept.max()) == pytest.approx(1 / 0.9)
    assert torch.equal(dropout.factors(7, 3, 1000, CPU), kept[7:10])


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", [FLOAT, BF16])
def test_attention_with_dropout_and_its_gradients(dtype, causal):
    heads, lengths = Heads(4, 2, 24, 0.2, causal=causal), [33, 1, 70]
    dropout = Dropout(0.25, seed=99)
    q, g = (torch.randn(104, 96).to(dtype) for _ in range(2))
    k, v = (torch.randn(104, 48).to(dtype) for _ in range(2))
    out, log_norm = fused.attention(q, k, v, lengths, heads, dropout)
    found = fused.attention_backward(g, q, k, v, out, log_norm, lengths, heads, dropout)
    # The plain way, its mask from the definition; weights are rounded before they are multiplied.
    leaves = [t.detach().float().requires_grad_() for t in (q, k, v)]
    true, _ = gpu_attention.attention(*leaves, lengths, heads, dropout)
    true.backward(g.float())
    tolerance = {FLOAT: 2e-6, BF16: 4e-3}[dtype]
    assert error(out, true.double()) < tolerance
    for one, leaf in zip(found, leaves, strict=True):
        assert error(one, leaf.grad.double()) < tolerance
    without, _ = fused.attention(q, k, v, lengths, heads)
    assert error(without, true.double()) > 0.1


def test_dropout_does_not_depend_on_threads_or_on_other_segments_numbers():
    heads, lengths = Heads(3, 3, 32, 0.2, causal=False), [40, 90, 11]
    q, k, v = (torch.randn(141, 96).bfloat16() for _ in range(3))
    before, found = torch.get_num_threads(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(fused.attention(q, k, v, lengths, heads, Dropout(0.1, 5))[0])
    torch.set_num_threads(before)
    assert all(torch.equal(one, found[0]) for one in found)
    k2 = k.clone()
    k2[:40] += 1
    other, _ = fused.attention(q, k2, v, lengths, heads, Dropout(0.1, 5))
    assert torch.equal(other[40:], found[0][40:])
    assert not torch.equal(other[:40], found[0][:40])


def test_what_the_kernels_refuse():
    y, x, _, _, weight, bias = summands(FLOAT, 3, 8)
    with pytest.raises(ValueError, match="x has 16 elements, not 24"):
        fused.add_norm(y, x[:2], weight, bias, 1e-5)
    with pytest.raises(ValueError, match="weight has another dtype"):
        fused.add_norm(y, x, weight.bfloat16(), bias, 1e-5)
    windowed = Heads(1, 1, 8, 1.0, window=2, causal=False)
    with pytest.raises(ValueError, match="a window needs causal attention"):
        fused.attention(y, x, x, [3], windowed)
    with pytest.raises(ValueError, match="this width of a head has no kernel"):
        fused.attention(y, x, x, [3], Heads(2, 2, 4, 1.0))
