"""The gradient noise scale: unbiased for micro-batches of any sizes, and advice from a run."""

from __future__ import annotations

import math

import pytest
import torch

from etude.tuning.config.recipe import Recipe
from etude.tuning.pipeline import tune
from etude.tuning.runs.folder import RunFolder
from etude.tuning.training.gradient_noise import (
    NOISE,
    SIGNAL,
    MicroGradients,
    NoiseScale,
    noise_scale,
)

WIDTH = 40
TRUE = torch.linspace(-1, 1, WIDTH, dtype=torch.float64) / 4


def estimates(sizes, generator, sigma):
    """Return a step's estimates, of samples with gradients TRUE + σ ε; weights by samples."""
    parameter = torch.nn.Parameter(torch.zeros(WIDTH, dtype=torch.float64))
    micro, total = MicroGradients([parameter]), sum(sizes)
    for size in sizes:
        noise = torch.randn(size, WIDTH, generator=generator, dtype=torch.float64)
        gradient = (TRUE + sigma * noise).sum(0) / total
        parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        micro.add(size, size / total)
    return micro.estimates()


@pytest.mark.parametrize("sizes", [[4, 4], [1, 1, 1, 1, 1, 1, 1, 1], [1, 7, 3], [12, 1]])
def test_signal_and_noise_are_estimated_without_bias(sizes):
    generator, sigma, steps = torch.Generator().manual_seed(0), 0.5, 3000
    found = [estimates(sizes, generator, sigma) for _ in range(steps)]
    for name, known in ((NOISE, WIDTH * sigma**2), (SIGNAL, float(TRUE.square().sum()))):
        values = torch.tensor([one[name] for one in found])
        error = float(values.std()) / math.sqrt(steps)
        assert float(values.mean()) == pytest.approx(known, abs=4 * error)


def test_equal_micro_batches_are_mccandlishs_formula():
    generator = torch.Generator().manual_seed(1)
    gradients = torch.randn(4, 9, generator=generator, dtype=torch.float64)
    parameter = torch.nn.Parameter(torch.zeros(9, dtype=torch.float64))
    micro, b, B = MicroGradients([parameter]), 3, 12
    for gradient in gradients:
        part = gradient / 4
        parameter.grad = part if parameter.grad is None else parameter.grad + part
        micro.add(b, 1 / 4)
    small = float(gradients.square().sum(1).mean())
    big = float(gradients.mean(0).square().sum())
    assert micro.estimates() == {
        SIGNAL: pytest.approx((B * big - b * small) / (B - b)),
        NOISE: pytest.approx((small - big) / (1 / b - 1 / B)),
    }


def test_one_micro_batch_tells_nothing():
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.grad = torch.ones(2)
    micro = MicroGradients([parameter])
    micro.add(4, 1.0)
    assert micro.estimates() == {}


def records(count, signal, noise):
    drawn = torch.Generator().manual_seed(4)
    jitter = (1 + 0.1 * torch.randn(count, 2, generator=drawn)).tolist()
    return [{SIGNAL: signal * a, NOISE: noise * b} for a, b in jitter]


@pytest.mark.parametrize(
    ("noise", "said"),
    [(400.0, "far below"), (10.0, "is near it"), (1.0, "far above: a smaller batch")],
)
def test_the_advice_compares_the_batch_with_the_scale(noise, said):
    found = noise_scale(records(64, 1.0, noise), batch=16)
    assert found is not None
    assert found.samples == pytest.approx(noise, rel=0.1)
    assert 0 < found.error < 0.1 * noise
    assert said in found.advice()
    assert found.steps == 32


def test_a_signal_too_weak_to_tell_is_said_to_be():
    found = noise_scale(records(64, -1e-3, 5.0), batch=16)
    assert found == NoiseScale(None, math.inf, 32, 16)
    assert "above what 32 steps of 16 samples can tell" in found.advice()
    assert noise_scale(records(10, 1.0, 5.0), batch=16) is None
    assert noise_scale([{"loss": 1.0}] * 40, batch=16) is None


@pytest.mark.integration
def test_a_run_measures_it_prints_the_advice_and_trains_as_without(tiny_recipe, tmp_path):
    from etude.tuning.callbacks import Callback

    said = []

    class Listener(Callback):
        def on_message(self, text):
            said.append(text)

    train = {"gradient_noise": True, "batch_samples": 8, "micro_tokens": 64, "epochs": 6}
    run = tune(
        Recipe.parse(tiny_recipe(train=train)), base=tmp_path / "runs", callbacks=[Listener()]
    )
    plain = tune(
        Recipe.parse(tiny_recipe(train={**train, "gradient_noise": False})), base=tmp_path / "plain"
    )
    ours, theirs = (RunFolder.open(one.folder).read_metrics() for one in (run, plain))
    assert [r["loss"] for r in ours if "loss" in r] == [r["loss"] for r in theirs if "loss" in r]
    assert any(SIGNAL in record for record in ours)
    advice = run.summary["gradient_noise_scale"]["advice"]
    assert advice in said
    page = (run.folder / "report.html").read_text("utf-8")
    assert "Optimisation" in page and "gradient noise scale" in page
