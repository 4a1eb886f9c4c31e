"""An output matrix some of whose rows are trained alone, against the whole matrix in float64."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from etude.tuning.objectives.cross_entropy import cross_entropy_sum
from etude.tuning.objectives.logprobs import log_probs


def inputs(dtype=torch.float64, count=37, words=23, width=6, trained=(4, 0, 22)):
    draw = torch.Generator().manual_seed(3)
    hidden = torch.randn(count, width, generator=draw, dtype=torch.float64).to(dtype)
    weight = torch.randn(words, width, generator=draw, dtype=torch.float64).to(dtype)
    rows = torch.randn(len(trained), width, generator=draw, dtype=torch.float64).to(dtype)
    targets = torch.randint(0, words, (count,), generator=draw)
    return hidden, weight, targets, rows, torch.tensor(trained)


def whole(weight, rows, ids):
    return weight.index_copy(0, ids, rows)


def test_losses_and_gradients_are_those_of_the_matrix_with_its_rows_replaced():
    hidden, weight, targets, rows, ids = inputs()
    for one in (hidden, rows):
        one.requires_grad_(True)
    reference = F.cross_entropy(hidden @ whole(weight, rows, ids).T, targets, reduction="sum")
    expected = torch.autograd.grad(reference, (hidden, rows))
    ours = cross_entropy_sum(hidden, weight, targets, rows, ids)
    torch.testing.assert_close(ours, reference)
    torch.testing.assert_close(torch.autograd.grad(ours, (hidden, rows)), expected)
    each = log_probs(hidden, weight, targets, rows, ids)
    torch.testing.assert_close(-each.sum(), reference)
    torch.testing.assert_close(torch.autograd.grad(-each.sum(), (hidden, rows)), expected)


@pytest.mark.parametrize("function", [cross_entropy_sum, log_probs])
def test_gradients_agree_with_differences(function):
    hidden, weight, targets, rows, ids = inputs(count=5)
    check = torch.autograd.gradcheck

    def of(h, d):
        return function(h, weight, targets, d, ids)

    assert check(of, (hidden.requires_grad_(True), rows.requires_grad_(True)))
    assert check(lambda d: of(hidden.detach(), d), (rows,))


def test_rows_that_are_frozen_are_in_the_place_of_the_matrix_own():
    hidden, weight, targets, rows, ids = inputs()
    hidden.requires_grad_(True)
    reference = F.cross_entropy(hidden @ whole(weight, rows, ids).T, targets, reduction="sum")
    expected = torch.autograd.grad(reference, hidden)
    for ours in (
        cross_entropy_sum(hidden, weight, targets, rows, ids),
        -log_probs(hidden, weight, targets, rows, ids).sum(),
    ):
        torch.testing.assert_close(torch.autograd.grad(ours, hidden), expected)
