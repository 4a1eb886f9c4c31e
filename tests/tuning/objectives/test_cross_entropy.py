"""The chunked loss against PyTorch's own cross-entropy, in float64."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from etude.tuning.objectives import cross_entropy as loss_module
from etude.tuning.objectives.cross_entropy import completion_loss, cross_entropy_sum


def _case(positions, hidden, vocabulary, seed=0):
    generator = torch.Generator().manual_seed(seed)
    h = torch.randn(positions, hidden, generator=generator, dtype=torch.float64)
    w = torch.randn(vocabulary, hidden, generator=generator, dtype=torch.float64)
    y = torch.randint(vocabulary, (positions,), generator=generator)
    return h.requires_grad_(), w.requires_grad_(), y


@given(st.integers(1, 300), st.integers(1, 9), st.integers(1, 40))
def test_chunked_loss_and_gradients_equal_the_full_ones(positions, hidden, vocabulary):
    h, w, y = _case(positions, hidden, vocabulary)
    ours = cross_entropy_sum(h, w, y)
    (ours * 0.37).backward()
    got = h.grad.clone(), w.grad.clone()
    h.grad = w.grad = None
    full = F.cross_entropy(h @ w.t(), y, reduction="sum")
    (full * 0.37).backward()
    # Both sum at most 300 float64 terms of order 10: rounding stays under 300 * 10 * 2^-52.
    torch.testing.assert_close(ours, full, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(got[0], h.grad, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(got[1], w.grad, rtol=1e-11, atol=1e-12)


def test_gradcheck_accepts_the_backward_pass(monkeypatch):
    monkeypatch.setattr(loss_module, "CHUNK", 2)
    h, w, y = _case(5, 3, 7)
    assert torch.autograd.gradcheck(lambda a, b: cross_entropy_sum(a, b, y), (h, w))


def test_a_frozen_head_gets_no_gradient_and_an_empty_batch_costs_nothing():
    h, w, y = _case(4, 3, 7)
    cross_entropy_sum(h, w.detach(), y).backward()
    assert w.grad is None
    assert h.grad is not None
    empty = cross_entropy_sum(h[:0], w.detach(), y[:0])
    assert empty.item() == 0.0


def _tiny(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)


def test_completion_loss_equals_the_loss_of_transformers_on_the_same_labels(tiny_llama):
    model = _tiny(tiny_llama())
    ids = torch.randint(0, 512, (3, 40), generator=torch.Generator().manual_seed(1))
    labels = ids.clone()
    labels[:, :25] = -100
    targets = torch.full_like(labels, -100)
    targets[:, :-1] = labels[:, 1:]
    ours = completion_loss(model, ids, targets) / (targets != -100).sum()
    theirs = model(input_ids=ids, labels=labels).loss
    # transformers takes its loss in float32.
    torch.testing.assert_close(ours.float(), theirs.float(), rtol=3e-6, atol=0)


def test_a_model_that_caps_its_logits_is_asked_for_them(tiny_llama):
    model = _tiny(tiny_llama())
    ids = torch.randint(0, 512, (2, 12), generator=torch.Generator().manual_seed(1))
    targets = torch.full_like(ids, -100)
    targets[0, 3:7] = ids[0, 4:8]
    targets[1, 5] = ids[1, 6]
    plain = completion_loss(model, ids, targets)
    model.config.final_logit_softcapping = 30.0
    asked = completion_loss(model, ids, targets)
    torch.testing.assert_close(asked.double(), plain, rtol=1e-6, atol=0)
