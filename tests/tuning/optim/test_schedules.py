"""Learning-rate schedules against PyTorch's own schedulers."""

from __future__ import annotations

import pytest
import torch

from etude.tuning.config.sections.train import TrainSpec
from etude.tuning.optim.schedules import learning_rate


def _rates(spec, total):
    return [learning_rate(spec, step, total) for step in range(total)]


def test_warm_up_rises_evenly_and_reaches_the_peak_once():
    rates = _rates(TrainSpec(lr=1.0, warmup_ratio=0.25, lr_scheduler="cosine"), 40)
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert max(rates) == rates[9] == 1.0


def test_cosine_equals_pytorchs_annealing():
    spec = TrainSpec(lr=2.0, warmup_ratio=0.0, lr_scheduler="cosine", min_lr_ratio=0.1)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=30, eta_min=0.2)
    theirs = []
    for _ in range(30):
        optimizer.step()
        scheduler.step()
        theirs.append(optimizer.param_groups[0]["lr"])
    assert _rates(spec, 30) == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
@pytest.mark.parametrize("total", [1, 2, 7, 100])
def test_the_last_step_has_the_final_rate(schedule, total):
    spec = TrainSpec(lr=1.0, warmup_ratio=0.0, lr_scheduler=schedule, min_lr_ratio=0.05)
    assert _rates(spec, total)[-1] == pytest.approx(0.05)


def test_a_constant_schedule_stays_after_warm_up():
    rates = _rates(TrainSpec(lr=3.0, warmup_ratio=0.1, lr_scheduler="constant"), 20)
    assert rates[0] == pytest.approx(1.5)
    assert set(rates[2:]) == {3.0}
