"""Divergences from a teacher: against PyTorch's definitions and gradcheck, in float64."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from etude.tuning.objectives.divergence import (
    KnownLogits,
    KnownStates,
    Mixture,
    mixture_of_logits,
    mixture_sum,
)

KINDS = ["forward_kl", "reverse_kl", "jsd"]


def random(*shape, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)


def dense(student, teacher, targets, mixture):
    """The loss of all rows by PyTorch's own functions."""
    T, w = mixture.temperature, mixture.label_weight
    log_q, log_p = F.log_softmax(student / T, -1), F.log_softmax(teacher / T, -1)

    def kl(log_a, log_b):
        return F.kl_div(log_b, log_a, reduction="sum", log_target=True)

    if mixture.divergence == "forward_kl":
        apart = kl(log_p, log_q)
    elif mixture.divergence == "reverse_kl":
        apart = kl(log_q, log_p)
    else:
        log_m = (mixture.beta * log_p.exp() + (1 - mixture.beta) * log_q.exp()).log()
        apart = mixture.beta * kl(log_p, log_m) + (1 - mixture.beta) * kl(log_q, log_m)
    return (1 - w) * T**2 * apart + w * F.cross_entropy(student, targets, reduction="sum"), apart


@pytest.mark.parametrize("label_weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("kind", KINDS)
def test_chunks_equal_the_whole_and_its_gradients(kind, temperature, label_weight):
    """150 positions are more than one chunk; the teacher's states have another width."""
    mixture = Mixture(kind, temperature, 0.3, label_weight)
    hidden, weight = random(150, 8, seed=1), random(31, 8, seed=2)
    teacher_hidden, teacher_weight = random(150, 5, seed=3), random(31, 5, seed=4)
    targets = torch.arange(150) % 31
    ours = [tensor.clone().requires_grad_() for tensor in (hidden, weight)]
    total, apart = mixture_sum(*ours, KnownStates(teacher_hidden, teacher_weight), targets, mixture)
    (2 * total).backward()
    theirs = [tensor.clone().requires_grad_() for tensor in (hidden, weight)]
    known, known_apart = dense(
        theirs[0] @ theirs[1].T, teacher_hidden @ teacher_weight.T, targets, mixture
    )
    (2 * known).backward()
    torch.testing.assert_close(total, known, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(apart, known_apart, rtol=1e-12, atol=1e-12)
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own.grad, other.grad, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_that_of_finite_differences(kind):
    mixture = Mixture(kind, 1.7, 0.6, 0.25)
    student = random(4, 9, seed=5).requires_grad_()
    teacher, targets = random(4, 9, seed=6), torch.tensor([0, 3, 8, 3])
    assert torch.autograd.gradcheck(
        lambda z: mixture_of_logits(z, KnownLogits(teacher), targets, mixture)[0], (student,)
    )
    hidden, weight = random(3, 4, seed=7).requires_grad_(), random(6, 4, seed=8).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda h, w: mixture_sum(
            *(h, w, KnownStates(random(3, 4, seed=9), random(6, 4, seed=10))),
            *(targets[:3] % 6, mixture),
        )[0],
        (hidden, weight),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_student_that_is_its_teacher_has_no_divergence_and_no_gradient(kind):
    logits = random(6, 12, scale=3).requires_grad_()
    loss, apart = mixture_of_logits(
        logits, KnownLogits(logits.detach()), torch.zeros(6, dtype=torch.int64), Mixture(kind, 2.0)
    )
    loss.sum().backward()
    torch.testing.assert_close(apart, torch.zeros(6, dtype=torch.float64), rtol=0, atol=1e-14)
    torch.testing.assert_close(logits.grad, torch.zeros_like(logits), rtol=0, atol=1e-14)


@pytest.mark.parametrize("beta", [0.1, 0.5, 0.9])
def test_the_jensen_shannon_divergence_is_between_zero_and_log_two(beta):
    student, teacher = random(50, 9, seed=1, scale=30), random(50, 9, seed=2, scale=30)
    targets = torch.zeros(50, dtype=torch.int64)
    _, apart = mixture_of_logits(student, KnownLogits(teacher), targets, Mixture("jsd", 1.0, beta))
    assert (apart >= 0).all()
    assert (apart <= math.log(2) + 1e-12).all()


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
def test_the_gradient_keeps_its_size_as_the_temperature_rises(temperature):
    """Of small logits it is (z_s − z_t)/V whatever T (Hinton et al. 2015, eq. 4)."""
    student, teacher = random(1, 7, seed=1, scale=1e-4), random(1, 7, seed=2, scale=1e-4)
    student = (student - student.mean()).requires_grad_()
    teacher = teacher - teacher.mean()
    loss, _ = mixture_of_logits(
        *(student, KnownLogits(teacher), torch.zeros(1, dtype=torch.int64)),
        Mixture(temperature=temperature),
    )
    loss.sum().backward()
    torch.testing.assert_close(
        student.grad, (student.detach() - teacher) / 7, rtol=1e-3, atol=1e-10
    )


def test_rows_of_a_matrix_beyond_the_other_are_of_no_token():
    """Models with one tokenizer pad their vocabularies to different round numbers."""
    hidden, weight, teacher = random(5, 4, seed=1), random(10, 4, seed=2), random(12, 4, seed=3)
    targets, mixture = torch.arange(5), Mixture(label_weight=0.5)
    cut = mixture_sum(hidden, weight, KnownStates(hidden, teacher[:10]), targets, mixture)
    whole = mixture_sum(hidden, weight, KnownStates(hidden, teacher), targets, mixture)
    assert cut[0] == whole[0] and cut[1] == whole[1]
