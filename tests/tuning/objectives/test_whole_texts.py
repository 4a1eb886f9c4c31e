"""Losses of whole texts are PyTorch's, however a step is split; the focal loss is its formula."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight

from etude.tuning.data.batch import Batch, Layout
from etude.tuning.data.encoded import EncodedSample
from etude.tuning.data.packing import balanced_order
from etude.tuning.objectives.base import in_evaluation
from etude.tuning.objectives.classification import (
    Classification,
    MultiLabel,
    Regression,
    balanced_class_weights,
    balanced_label_weights,
)

PADDED = Layout(packed=False)


class Table(torch.nn.Module):
    """A model whose logits are rows of a table, by the first token."""

    device = torch.device("cpu")

    def __init__(self, rows: int, outputs: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        values = torch.randn(rows, outputs, generator=generator, dtype=torch.float64)
        self.logits = torch.nn.Parameter(3 * values)

    def forward(self, input_ids, **_):
        return SimpleNamespace(logits=self.logits[input_ids[:, 0]])


def samples(labels):
    return [
        EncodedSample(
            np.array([i, 1], np.int32), np.zeros(2, np.bool_), f"rows.jsonl:{i + 1}", label=label
        )
        for i, label in enumerate(labels)
    ]


def step(objective, model, found, size):
    """The gradient of one step that is split into micro-batches of `size` samples."""
    model.zero_grad()
    total = 0.0
    for start in range(0, len(found), size):
        part = objective.loss(model, Batch(found[start : start + size], PADDED), {})
        loss = part.total / objective.normalizer(found)
        loss.backward()
        total += float(loss.detach())
    return total, model.logits.grad.clone()


@pytest.mark.parametrize("size", [2, 7])
def test_weighted_cross_entropy_is_that_of_pytorch_over_the_whole_step(size):
    labels = [0, 0, 0, 1, 0, 2, 0]
    found, model = samples(labels), Table(7, 3)
    weights = balanced_class_weights(found, 3)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=np.array(labels))
    np.testing.assert_allclose(weights, expected, rtol=1e-12)
    loss, gradient = step(Classification(3, weights), model, found, size)
    model.zero_grad()
    wanted = F.cross_entropy(
        model.logits, torch.tensor(labels), weight=torch.tensor(weights, dtype=torch.float64)
    )
    wanted.backward()
    # float64 throughout; sums in another order.
    assert loss == pytest.approx(float(wanted.detach()), rel=1e-12)
    torch.testing.assert_close(gradient, model.logits.grad, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("size", [2, 7])
def test_several_labels_are_bce_with_logits_over_samples_and_labels(size):
    labels = [(0,), (0, 2), (), (0,), (1, 2), (0,), (0, 1)]
    found, model = samples(labels), Table(7, 3)
    weights = balanced_label_weights(found, 3)
    assert weights == pytest.approx([2 / 5, 5 / 2, 5 / 2])
    loss, gradient = step(MultiLabel(3, weights), model, found, size)
    truth = torch.zeros(7, 3, dtype=torch.float64)
    for row, present in enumerate(labels):
        truth[row, list(present)] = 1
    model.zero_grad()
    wanted = F.binary_cross_entropy_with_logits(
        model.logits, truth, pos_weight=torch.tensor(weights, dtype=torch.float64)
    )
    wanted.backward()
    assert loss == pytest.approx(float(wanted.detach()), rel=1e-12)
    torch.testing.assert_close(gradient, model.logits.grad, rtol=1e-10, atol=1e-14)


def test_numbers_are_mean_squared_error_in_deviations_and_come_back_in_their_unit():
    labels = [3.5, 1.0, 2.25, 7.0]
    found, model = samples(labels), Table(4, 1)
    mean, deviation = float(np.mean(labels)), float(np.std(labels))
    objective = Regression(mean, deviation)
    loss, _ = step(objective, model, found, 3)
    targets = (torch.tensor(labels, dtype=torch.float64) - mean) / deviation
    assert loss == pytest.approx(float(F.mse_loss(model.logits[:, 0], targets).detach()), rel=1e-12)
    outputs = objective.loss(model, Batch(found, PADDED), {}).outputs
    np.testing.assert_allclose(outputs, model.logits[:, 0].detach() * deviation + mean, rtol=1e-12)


def test_the_focal_loss_is_its_formula_and_gamma_zero_is_cross_entropy():
    labels = [0, 1, 2, 0]
    found, model = samples(labels), Table(4, 3)
    p = model.logits.softmax(1)[torch.arange(4), torch.tensor(labels)]
    for gamma in (0.5, 2.0):
        loss, gradient = step(Classification(3, gamma=gamma), model, found, 3)
        model.zero_grad()
        wanted = (-((1 - p) ** gamma) * p.log()).mean()
        wanted.backward(retain_graph=True)
        assert loss == pytest.approx(float(wanted.detach()), rel=1e-12)
        torch.testing.assert_close(gradient, model.logits.grad, rtol=1e-8, atol=1e-13)
    present = [(0,), (), (1, 2), (2,)]
    shares = model.logits.sigmoid()
    truth = torch.zeros(4, 3, dtype=torch.float64)
    for row, names in enumerate(present):
        truth[row, list(names)] = 1
    right = torch.where(truth > 0, shares, 1 - shares)
    wanted = (-((1 - right) ** 2) * right.log()).mean()
    loss, _ = step(MultiLabel(3, gamma=2.0), model, samples(present), 4)
    assert loss == pytest.approx(float(wanted.detach()), rel=1e-12)


def test_a_certain_prediction_has_a_finite_focal_gradient():
    model = Table(1, 2)
    with torch.no_grad():
        model.logits.copy_(torch.tensor([[900.0, -900.0]]))
    _, gradient = step(Classification(2, gamma=0.5), model, samples([0]), 1)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("weights", [None, [1.0, 0.5, 4.0]])
def test_smoothed_labels_are_pytorchs_over_the_whole_step(weights):
    labels = [0, 1, 2, 0, 1]
    found, model = samples(labels), Table(5, 3)
    loss, gradient = step(Classification(3, weights, smoothing=0.2), model, found, 2)
    model.zero_grad()
    given = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    wanted = F.cross_entropy(model.logits, torch.tensor(labels), given, label_smoothing=0.2)
    wanted.backward()
    assert loss == pytest.approx(wanted.item(), rel=1e-12)
    torch.testing.assert_close(gradient, model.logits.grad, rtol=1e-10, atol=1e-14)


def test_evaluations_leave_out_weights_gamma_and_smoothing():
    weighted = Classification(3, [1.0, 2.0, 3.0], gamma=2.0)
    plain = in_evaluation(weighted)
    assert plain.weights is None and plain.gamma == 0 and plain.classes == 3
    assert in_evaluation(Classification(3, smoothing=0.1)).smoothing == 0
    assert in_evaluation(MultiLabel(2, [1.0, 4.0])).weights is None
    numbers = Regression(0.0, 1.0)
    assert in_evaluation(numbers) is numbers


def test_balanced_order_gives_every_class_its_share_by_seed_and_epoch():
    classes = [0] * 90 + [1] * 8 + [2] * 3
    order = balanced_order(classes, seed=3, epoch=0)
    assert len(order) == 101
    drawn = np.bincount([classes[i] for i in order])
    assert sorted(drawn) == [33, 34, 34]
    # Every rare sample occurs, as often as the others of its class or once more.
    times = np.bincount([i for i in order if classes[i] == 2], minlength=101)[98:]
    assert times.max() - times.min() <= 1
    assert len({i for i in order if classes[i] == 0}) in (33, 34)
    assert order == balanced_order(classes, seed=3, epoch=0)
    assert order != balanced_order(classes, seed=3, epoch=1)
    assert order != balanced_order(classes, seed=4, epoch=0)
    # Over epochs the frequent class is seen whole.
    seen = {i for epoch in range(12) for i in balanced_order(classes, 0, epoch) if i < 90}
    assert len(seen) > 85
