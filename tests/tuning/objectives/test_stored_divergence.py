"""Divergences from stored scores: equal to the whole where all is stored, unbiased where drawn."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from etude.tuning.data.score_store import Scores
from etude.tuning.objectives.divergence import (
    Mixture,
    mixture_of_logits,
    mixture_rows,
    mixture_sum,
)
from etude.tuning.objectives.stored_divergence import KnownScores, likeliest, sampled, stored_rows

KINDS = ["forward_kl", "reverse_kl", "jsd"]


def random(*shape, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("kind", KINDS)
def test_all_words_stored_are_the_whole_distribution(kind, temperature):
    mixture = Mixture(kind, temperature, 0.3, 0.25)
    student, teacher = random(20, 31, seed=1, scale=3), random(20, 31, seed=2, scale=3)
    targets = torch.arange(20)
    stored = stored_rows(student, likeliest(teacher, 31, temperature), targets, mixture)
    whole = mixture_rows(student, teacher, targets, mixture)
    for one, other in zip(stored, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_that_of_finite_differences(kind):
    mixture = Mixture(kind, 1.7, 0.6, 0.25)
    student = random(4, 9, seed=5).requires_grad_()
    known = KnownScores(likeliest(random(4, 9, seed=6), 3, 1.7), 9)
    targets = torch.tensor([0, 3, 8, 3])
    assert torch.autograd.gradcheck(
        lambda z: mixture_of_logits(z, known, targets, mixture)[0], (student,)
    )


def test_the_gradient_of_drawn_words_is_that_of_finite_differences():
    draws = torch.rand(4, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    known = KnownScores(sampled(random(4, 9, seed=6), 6, 2.0, draws), 9)
    mixture, targets = Mixture(temperature=2.0, label_weight=0.5), torch.tensor([0, 3, 8, 3])
    assert torch.autograd.gradcheck(
        lambda z: mixture_of_logits(z, known, targets, mixture)[0],
        (random(4, 9, seed=5).requires_grad_(),),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_merged_words_are_no_further_apart_than_all_of_them(kind):
    """Data processing: a divergence falls where outcomes are merged, and to 0 from a teacher."""
    mixture, targets = Mixture(kind, 2.0), torch.zeros(20, dtype=torch.int64)
    student, teacher = random(20, 31, seed=1, scale=3), random(20, 31, seed=2, scale=3)
    before = torch.zeros(20, dtype=torch.float64)
    for count in (1, 4, 16, 31):
        _, found, _ = stored_rows(student, likeliest(teacher, count, 2.0), targets, mixture)
        assert (found >= before - 1e-12).all()
        before = found
    _, found, gradient = stored_rows(teacher, likeliest(teacher, 5, 2.0), targets, mixture)
    torch.testing.assert_close(found, torch.zeros_like(found), rtol=0, atol=1e-14)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_a_student_that_is_certain_of_a_word_has_finite_gradients(kind):
    """In float32 the probabilities of all other words are zero."""
    student = torch.zeros(2, 12)
    student[0, 3] = student[1, 11] = 200.0
    teacher = random(2, 12, seed=3).float()
    loss, _, gradient = stored_rows(
        student, likeliest(teacher, 4, 1.0), torch.tensor([3, 3]), Mixture(kind, 1.0)
    )
    assert loss.isfinite().all() and gradient.isfinite().all()


def test_the_mean_over_draws_is_the_whole_divergence_and_gradient():
    """Within four standard errors of 4,000 draws of eight words each, in every entry."""
    student, teacher = random(1, 7, seed=1), random(1, 7, seed=2)
    mixture, targets = Mixture(temperature=1.5), torch.zeros(1, dtype=torch.int64)
    draws = torch.rand(4000, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scores = sampled(teacher.expand(4000, 7), 8, 1.5, draws)
    assert scores.shares is not None
    torch.testing.assert_close(scores.shares.sum(1), torch.ones(4000, dtype=torch.float64))
    _, found, gradient = stored_rows(student.expand(4000, 7), scores, targets.expand(4000), mixture)
    _, known, known_gradient = mixture_rows(student, teacher, targets, mixture)
    for one, other in ((found[:, None], known[:, None]), (gradient, known_gradient)):
        error = one.std(0) / 4000**0.5
        assert ((one.mean(0) - other[0]).abs() <= 4 * error).all()


def test_drawn_words_are_stored_once_with_their_number_and_the_mass_they_cover():
    teacher = torch.log(torch.tensor([[0.5, 0.25, 0.25]], dtype=torch.float64))
    draws = torch.tensor([[0.1, 0.4, 0.49, 0.9]], dtype=torch.float64)
    scores = sampled(teacher, 4, 1.0, draws)
    there = scores.shares[0] > 0
    assert scores.words[0][there].tolist() == [0, 2]
    assert scores.shares[0][there].tolist() == [0.75, 0.25]
    torch.testing.assert_close(scores.rest.exp(), torch.tensor([0.25], dtype=torch.float64))


def test_chunks_of_stored_scores_are_the_whole_of_them():
    """150 positions are more than one chunk; the student has rows beyond the teacher's words."""
    hidden, weight = random(150, 8, seed=1), random(40, 8, seed=2)
    known = KnownScores(likeliest(random(150, 31, seed=3), 5, 2.0), 31)
    targets, mixture = torch.arange(150) % 31, Mixture("jsd", 2.0, 0.3, 0.5)
    ours = [tensor.clone().requires_grad_() for tensor in (hidden, weight)]
    total, apart = mixture_sum(*ours, known, targets, mixture)
    total.backward()
    theirs = [tensor.clone().requires_grad_() for tensor in (hidden, weight)]
    losses, found = mixture_of_logits(theirs[0] @ theirs[1].T, known, targets, mixture)
    losses.sum().backward()
    torch.testing.assert_close(total, losses.sum(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(apart, found.sum(), rtol=1e-12, atol=1e-12)
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own.grad, other.grad, rtol=1e-11, atol=1e-11)


def test_scores_in_sixteen_bits_are_near_the_whole():
    """float16 has 11 bits: a log-probability of -8 is off by 2⁻⁹ at most, p by a 256th of it."""
    student, teacher = random(50, 100, seed=1, scale=2), random(50, 100, seed=2, scale=2)
    mixture, targets = Mixture(temperature=2.0), torch.zeros(50, dtype=torch.int64)
    exact = likeliest(teacher, 100, 2.0)
    rounded = Scores(exact.words, exact.log_p.half().double(), exact.rest)
    _, found, gradient = stored_rows(student, rounded, targets, mixture)
    _, known, known_gradient = mixture_rows(student, teacher, targets, mixture)
    torch.testing.assert_close(found, known, rtol=2**-8, atol=2**-8)
    p = F.softmax(teacher / 2, -1)
    assert ((gradient - known_gradient).abs() <= 2 * 2**-8 * p + 1e-12).all()
