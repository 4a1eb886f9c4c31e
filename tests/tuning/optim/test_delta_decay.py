"""Decay of ΔW and of its factors, on a quadratic whose minima are known, in float64."""

from __future__ import annotations

import pytest
import torch

from etude.core.errors import RecipeError, RunError
from etude.tuning.config.recipe import Recipe
from etude.tuning.optim.delta_decay import decay_delta
from etude.tuning.pipeline import tune

LAMBDA = 0.4
SIGMA = torch.tensor([3.0, 1.5, 0.9, 0.3], dtype=torch.float64)
SCALING = 2.0


def target():
    """Return T (9, 7) with the singular values SIGMA, and its singular vectors."""
    generator = torch.Generator().manual_seed(0)
    left, right = (
        torch.linalg.qr(torch.randn(n, 4, generator=generator, dtype=torch.float64))[0]
        for n in (9, 7)
    )
    return left @ SIGMA.diag() @ right.T, left, right


def minimised(decay, *, ratio=1.0, steps=40_000, lr=0.01):
    """Minimise ½‖s B A − T‖² by gradient descent; `decay` acts before each step."""
    T, _, _ = target()
    generator = torch.Generator().manual_seed(1)
    A = 0.1 * torch.randn(4, 7, generator=generator, dtype=torch.float64)
    B = 0.1 * torch.randn(9, 4, generator=generator, dtype=torch.float64)
    for _ in range(steps):
        G = SCALING * B @ A - T
        grad_A, grad_B = SCALING * B.T @ G, SCALING * G @ A.T
        decay(A, B, lr * LAMBDA, ratio * lr * LAMBDA)
        A -= lr * grad_A
        B -= ratio * lr * grad_B
    return SCALING * B @ A


def of_delta(A, B, rate_A, rate_B):
    assert decay_delta(A, B, SCALING, rate_A, rate_B)


def of_factors(A, B, rate_A, rate_B):
    """Weight decay as every optimiser has it."""
    A.mul_(1 - rate_A)
    B.mul_(1 - rate_B)


def by_root(A, B, rate_A, rate_B):
    """Multiply the product by 1 − lr λ."""
    A.mul_((1 - rate_A) ** 0.5)
    B.mul_((1 - rate_B) ** 0.5)


@pytest.mark.parametrize("ratio", [1.0, 4.0])
def test_decay_of_delta_divides_every_singular_value(ratio):
    _, left, right = target()
    known = left @ (SIGMA / (1 + LAMBDA)).diag() @ right.T
    found = minimised(of_delta, ratio=ratio)
    torch.testing.assert_close(found, known, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("decay", "share"), [(of_factors, 1.0), (by_root, 0.5)])
def test_decay_of_the_factors_lowers_singular_values_by_a_constant_and_cuts_small_ones(
    decay, share
):
    """With ΔW = s B A the factors are U = √s B, V = √s A: the constant is λ/s. By roots, half."""
    _, left, right = target()
    lower = (SIGMA - share * LAMBDA / SCALING).clamp(min=0)
    known = left @ lower.diag() @ right.T
    # The roots' decay differs from λ/2 in the second order of lr λ.
    torch.testing.assert_close(minimised(decay), known, rtol=0, atol=1e-3 if share < 1 else 1e-9)


def test_without_a_gradient_delta_shrinks_along_the_gradient_of_its_square():
    generator = torch.Generator().manual_seed(2)
    A = torch.randn(3, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    B = torch.randn(6, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    (SCALING * B @ A).square().sum().div(2).backward()
    expected = A.detach() - 1e-3 * A.grad, B.detach() - 2e-3 * B.grad
    assert decay_delta(A.detach(), B.detach(), SCALING, 1e-3, 2e-3)
    torch.testing.assert_close((A.detach(), B.detach()), expected, rtol=0, atol=1e-12)


def test_a_step_that_would_overshoot_changes_nothing():
    A, B = torch.eye(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    assert not decay_delta(A, B, 1.0, 0.1, 1.0)
    assert A.equal(torch.eye(2)) and B.equal(torch.eye(2))


@pytest.mark.integration
def test_a_run_decays_delta_and_not_its_factors(tiny_recipe, tmp_path):
    plain, decayed = (
        tune(Recipe.parse(tiny_recipe(train={"delta_decay": value})), base=tmp_path / str(value))
        for value in (0.0, 2.0)
    )

    def size(run):
        from safetensors.torch import load_file

        tensors = load_file(run.folder / "adapter" / "adapter_model.safetensors")
        return sum(
            float((tensors[name.replace("lora_A", "lora_B")] @ A).square().sum())
            for name, A in tensors.items()
            if "lora_A" in name
        )

    assert size(decayed) < 0.9 * size(plain)
    assert decayed.summary["optimization"]["decay of ΔW"] == "2"
    assert "decay of ΔW" not in plain.summary["optimization"]


@pytest.mark.integration
def test_a_decay_too_strong_for_the_rate_ends_the_run_with_the_reason(tiny_recipe, tmp_path):
    recipe = Recipe.parse(tiny_recipe(train={"delta_decay": 1e4}))
    with pytest.raises(RunError, match=r"train\.delta_decay 10000 at learning rate .* overshoot"):
        tune(recipe, base=tmp_path)


@pytest.mark.parametrize(
    ("adapter", "message"),
    [
        ({"kind": "dora"}, "train.delta_decay decays ΔW = U Vᵀ of adapter.kind: lora, not of dora"),
        ({"init": "pissa"}, "with adapter.init: pissa the adapter begins as a part of the base"),
    ],
)
def test_it_is_refused_where_it_is_not_defined(adapter, message):
    with pytest.raises(RecipeError) as caught:
        Recipe.parse({"adapter": adapter, "train": {"delta_decay": 0.1}})
    assert message in str(caught.value)
