"""A young adapter changes each number by less than its unit in bfloat16, and still counts.

Rounding to the nearest leaves a sum where it is when what is added is below half a unit of it.
Were an adapter's part Δ added to numbers that are rounded already, each would stay as it is. Added
before the rounding it moves some of them by a whole unit, as many as make its mean: the slope of
what comes out on Δ is 1 then, and 0 in the other case.
"""

import pytest
import torch
from torch import nn

from etude.tuning.adapters import bases
from etude.tuning.adapters.kinds.dora import DoRA
from etude.tuning.adapters.layer import AdaptedLayer
from etude.tuning.adapters.product import adapted_product, base_product, thin_input
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.fusion.projections import Group, Projection
from etude.tuning.kernels import fused
from etude.tuning.quant.build import quantized

T, WIDE, OUT, RANK = 512, 96, 640, 8

BASES = {
    "dense": QuantSpec(kind="none"),
    "nf4": QuantSpec(kind="nf4"),
    "int8": QuantSpec(kind="int8"),
    "integers": QuantSpec(kind="int8", compute="int8"),
}


def layer(kind):
    linear = nn.Linear(WIDE, OUT, bias=False)
    nn.init.normal_(linear.weight, std=WIDE**-0.5)
    linear.requires_grad_(False)
    spec = BASES[kind]
    return (
        linear.bfloat16() if spec.kind == "none" else quantized(linear.weight, spec, torch.bfloat16)
    )


def young(count=T):
    """Return x, A, B, so that Δ is about a twentieth of a unit of x Wᵀ."""
    x = torch.randn(count, WIDE).bfloat16()
    A = torch.randn(RANK, WIDE) * WIDE**-0.5
    B = torch.randn(OUT, RANK) * (RANK**-0.5 * 2**-8 / 20)
    return x, A, B


def slope(found, without, change):
    """Return the slope of `found` − `without` on `change`."""
    moved, change = (found.double() - without.double()).flatten(), change.double().flatten()
    return float(moved @ change / (change @ change))


def delta(x, A, B):
    return x.double() @ A.double().T @ B.double().T


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("kind", BASES)
def test_small_changes_of_an_output_are_not_rounded_away(kind, residual):
    base, (x, A, B) = layer(kind), young()
    add = torch.randn(T, OUT).bfloat16() if residual else None
    without = base_product(base, x, add)
    found = base_product(base, x, add, thin=(thin_input(x, A.bfloat16()), B, 1.0))
    assert slope(found, without, delta(x, A, B)) == pytest.approx(1, abs=0.15)


@pytest.mark.skipif(not fused.has_kernels(torch.ones(1).bfloat16()), reason="no compiled kernels")
@pytest.mark.parametrize("residual", [False, True])
def test_small_changes_of_few_rows_are_not_rounded_away(residual):
    base = layer("dense")
    parts = []
    with torch.inference_mode():
        for _ in range(T // 16):
            x, A, B = young(16)
            add = torch.randn(16, OUT).bfloat16() if residual else None
            found = base_product(base, x, add, thin=(thin_input(x, A.bfloat16()), B, 1.0))
            parts.append((found, base_product(base, x, add), delta(x, A, B)))
    moved, without, change = (torch.cat(part) for part in zip(*parts, strict=True))
    assert slope(moved, without, change) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("kind", BASES)
def test_small_changes_of_a_gradient_are_not_rounded_away(kind):
    base = layer(kind)
    g = torch.randn(T, OUT).bfloat16()
    B = torch.randn(OUT, RANK) * OUT**-0.5
    A = torch.randn(RANK, WIDE) * (RANK**-0.5 * 2**-8 / 20)

    def gradient(A, B):
        x = torch.zeros(T, WIDE).bfloat16().requires_grad_()
        adapted_product(base, x, A, B, 1.0).backward(g)
        return x.grad

    change = g.double() @ B.double() @ A.double()
    assert slope(gradient(A, B), gradient(0 * A, B), change) == pytest.approx(1, abs=0.3)
    group = Group([Projection(base, 1.0)], [(A, B)])
    dx = group.input_gradient([g], group.thin_gradient([g]))
    without = Group([Projection(base, None)], [None]).input_gradient([g], None)
    assert slope(dx, without, change) == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize("more", [1e-4, 3e-4, 1.5e-3])
@pytest.mark.parametrize("kind", BASES)
def test_small_changes_of_a_magnitude_are_not_rounded_away(kind, more):
    base, (x, A, B) = layer(kind), young()
    dora = DoRA(base, RANK, 8.0, 0.0)
    dora.reset(base, torch.Generator().manual_seed(0))
    plain = AdaptedLayer(base)
    plain.adapters["default"] = dora
    plain.active = ("default",)
    with torch.no_grad():
        dora.lora_A.copy_(A)
        dora.lora_B.copy_(B)
        dora.magnitude.copy_(dora.norm(base))
        group = Group([Projection(base, 1.0, dora.norm(base))], [(A, B, dora.magnitude)])
        without = plain(x), group.forward(x)[0][0]
        dora.magnitude.mul_(1 + more)
        found = plain(x), group.forward(x)[0][0]
        true = more * (x.double() @ bases.read_matrix(base).double().T + delta(x, A, B))
    for one, other in zip(found, without, strict=True):
        assert slope(one, other, true) == pytest.approx(1, abs=0.15)


@pytest.mark.skipif(not fused.has_kernels(torch.ones(1)), reason="no compiled kernels")
@pytest.mark.parametrize("count", [1, 3, 8, 13])
@pytest.mark.parametrize(("out", "rank"), [(1, 1), (37, 5), (64, 16), (700, 130)])
@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-6), (torch.bfloat16, 2**-8)])
def test_a_thin_product_with_all_that_is_added(count, out, rank, dtype, most):
    x, W = torch.randn(count, 2 * WIDE)[:, :WIDE].to(dtype), torch.randn(out, WIDE).to(dtype)
    bias, add = torch.randn(out).to(dtype), torch.randn(count, out).to(dtype)
    # Rows of h lie apart where several adapters share a thin product.
    h, b = torch.randn(count, rank + 3).to(dtype)[:, 2 : rank + 2], torch.randn(rank, out).to(dtype)
    true = x.double() @ W.double().T + bias.double() + add.double() + h.double() @ b.double()
    found = fused.thin_product(x, W, bias, add, (h, b))
    largest = (x.double().abs() @ W.double().abs().T + h.double().abs() @ b.double().abs()).amax()
    assert float((found.double() - true).abs().amax()) <= most * float(largest)
