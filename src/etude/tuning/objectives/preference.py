r"""Preference objectives: DPO and ORPO for pairs of answers, KTO for labelled answers.

With log π(y|x) the sum over the tokens of an answer, π_ref the model before tuning, and
r(x, y) = log π(y|x) − log π_ref(y|x):

    DPO   −(1−ε) log σ(β(r_w − r_l)) − ε log σ(−β(r_w − r_l))
          Rafailov et al. 2023, eq. 7; ε, the share of flipped labels: Mitchell 2023

    ORPO  −ℓ_w − λ log σ(log odds_w − log odds_l),   log odds = ℓ − log(1 − exp ℓ)
          Hong et al. 2024, eqs. 1, 4, 6 and 7, ℓ = log π(y|x) / |y|; no π_ref

    KTO   λ_D (1 − σ(β(r − z₀)))  of a desirable answer,
          λ_U (1 − σ(β(z₀ − r)))  of an undesirable one
          z₀ = max(0, mean of r(x, y') over mismatched prompts x and answers y'), not differentiated
          Ethayarajh et al. 2024, eqs. 7 and 8

The loss of a step is the mean over its pairs (answers, for KTO). w is the chosen answer, l the
rejected one.

KTO's z₀ estimates KL(π ‖ π_ref). The paper takes it from a micro-batch, each prompt with the answer
of the next sample. Here it is the mean over the samples of the whole *step*, computed before its
first micro-batch, so it does not depend on how the step is split. A prompt is paired with the
answer of a fixed other sample of the same data, chosen by the seed, with a different prompt where
possible. A resumed run therefore reproduces z₀, and log π_ref(y'|x) can be computed before
training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from etude.tuning.config.sections.objective import ObjectiveSpec
from etude.tuning.data.batch import Batch
from etude.tuning.data.encoded import EncodedSample
from etude.tuning.metrics.metric import PREFERENCE_ACCURACY, REWARD_MARGIN, Metric
from etude.tuning.objectives.base import LossSum, StepValues
from etude.tuning.objectives.logprobs import answer_log_probs
from etude.tuning.objectives.reference import Reference, still

# The losses


def dpo_loss(
    chosen: torch.Tensor, rejected: torch.Tensor, beta: float, label_smoothing: float = 0.0
) -> torch.Tensor:
    """Return DPO's loss of each pair.

    Args:
        chosen: (P,) r_w, log π − log π_ref of the better answers.
        rejected: (P,) r_l, of the worse ones.
        beta: strength of the regularisation towards the reference.
        label_smoothing: ε, assumed share of pairs with swapped labels.
    """
    scaled = beta * (chosen - rejected)
    right, flipped = F.logsigmoid(scaled), F.logsigmoid(-scaled)
    return -(1 - label_smoothing) * right - label_smoothing * flipped


def log_odds(mean_log_probs: torch.Tensor) -> torch.Tensor:
    """Return log(p / (1 − p)) of p = exp ℓ, for ℓ < 0, without computing 1 − p directly."""
    # log(1 − exp ℓ) = log(−expm1 ℓ), exact where p is near 1. A model sure of every token has
    # ℓ = 0 in floating point: the odds are then those of the largest p below 1.
    largest = -torch.finfo(mean_log_probs.dtype).eps
    bounded = mean_log_probs.clamp(max=largest)
    return bounded - torch.log(-torch.expm1(bounded))


def orpo_loss(chosen: torch.Tensor, rejected: torch.Tensor, odds_weight: float) -> torch.Tensor:
    """Return ORPO's loss of each pair.

    Args:
        chosen: (P,) ℓ_w, mean log-probability of a token of the better answers.
        rejected: (P,) ℓ_l, of the worse ones.
        odds_weight: λ.
    """
    ratio = log_odds(chosen) - log_odds(rejected)
    return -chosen - odds_weight * F.logsigmoid(ratio)


def kto_loss(
    rewards: torch.Tensor,
    desirable: torch.Tensor,
    kl: float,
    beta: float,
    desirable_weight: float,
    undesirable_weight: float,
) -> torch.Tensor:
    """Return KTO's loss of each answer.

    Args:
        rewards: (S,) r, log π − log π_ref.
        desirable: (S,) bool.
        kl: z₀, at least 0.
        beta: strength of the pull to the reference.
        desirable_weight: λ_D.
        undesirable_weight: λ_U.
    """
    value = torch.sigmoid(beta * torch.where(desirable, rewards - kl, kl - rewards))
    weights = torch.where(
        desirable, value.new_tensor(desirable_weight), value.new_tensor(undesirable_weight)
    )
    return weights * (1 - value)


# The objectives


class Pairs:
    """Base class of pair objectives: the model processes both sides, a pair counts once."""

    unit = "per pair"
    metrics: tuple[Metric, ...] = (PREFERENCE_ACCURACY, REWARD_MARGIN)

    def sides(self, sample: EncodedSample) -> Sequence[EncodedSample]:
        """Return both answers."""
        return sample.sides

    def normalizer(self, samples: Sequence[EncodedSample]) -> int:
        """Return the number of pairs."""
        return len(samples)

    def step_values(self, model: Any, batches: Sequence[Batch]) -> StepValues:
        """Return nothing."""
        del model, batches
        return {}

    def summarize(
        self, samples: Sequence[EncodedSample], outputs: Sequence[Any]
    ) -> dict[str, float]:
        """Return nothing."""
        del samples, outputs
        return {}


class DPO(Pairs):
    """Direct preference optimisation; see the module docstring."""

    name = "dpo"

    def __init__(self, spec: ObjectiveSpec, reference: Reference) -> None:
        self.spec = spec
        self.reference = reference

    def loss(self, model: Any, batch: Batch, values: StepValues) -> LossSum:
        """Return Σ loss; rewards are β r, and a tie counts as half correct."""
        del values
        sides = batch.of([side for sample in batch for side in sample.sides])
        before = self.reference.log_probs(model, sides)
        ratios = answer_log_probs(model, sides) - before
        chosen, rejected = ratios[0::2], ratios[1::2]
        losses = dpo_loss(chosen, rejected, self.spec.beta, self.spec.label_smoothing)
        beta = self.spec.beta
        return LossSum(losses.sum(), _pair_sums(beta * chosen, beta * rejected))


class ORPO(Pairs):
    """Odds ratio preference optimisation; see the module docstring."""

    name = "orpo"

    def __init__(self, spec: ObjectiveSpec) -> None:
        self.spec = spec

    def loss(self, model: Any, batch: Batch, values: StepValues) -> LossSum:
        """Return Σ loss; the reward is the mean log-probability per token."""
        del values
        sides = batch.of([side for sample in batch for side in sample.sides])
        summed = answer_log_probs(model, sides)
        means = summed / torch.tensor(
            [side.trained_tokens for side in sides], device=summed.device, dtype=summed.dtype
        )
        chosen, rejected = means[0::2], means[1::2]
        losses = orpo_loss(chosen, rejected, self.spec.odds_weight)
        return LossSum(losses.sum(), _pair_sums(chosen, rejected))


class KTO:
    """Kahneman-Tversky optimisation; see the module docstring.

    Args:
        spec: the objective section of the recipe.
        reference: π_ref.
        partners: for each sample, its prompt with another sample's answer; see
            `mismatched_partners`.
    """

    name = "kto"
    unit = "per answer"
    metrics: tuple[Metric, ...] = (PREFERENCE_ACCURACY, REWARD_MARGIN)

    def __init__(
        self,
        spec: ObjectiveSpec,
        reference: Reference,
        partners: dict[EncodedSample, EncodedSample],
    ) -> None:
        self.spec = spec
        self.reference = reference
        self.partners = partners

    def sides(self, sample: EncodedSample) -> Sequence[EncodedSample]:
        """Return the sample; its mismatched partner is not trained."""
        return (sample,)

    def normalizer(self, samples: Sequence[EncodedSample]) -> int:
        """Return the number of answers."""
        return len(samples)

    def step_values(self, model: Any, batches: Sequence[Batch]) -> StepValues:
        """Return the step's z₀ as `kl`."""
        total, count = 0.0, 0
        for batch in batches:
            partners = batch.of([self.partners[sample] for sample in batch])
            with still(model):
                now = answer_log_probs(model, partners)
            before = self.reference.log_probs(model, partners)
            total += float((now - before).sum())
            count += len(batch)
        return {"kl": max(0.0, total / count)}

    def loss(self, model: Any, batch: Batch, values: StepValues) -> LossSum:
        """Return Σ loss; an answer counts as correct if β(r − z₀) has its label's sign."""
        spec, kl = self.spec, values["kl"]
        before = self.reference.log_probs(model, batch)
        ratios = answer_log_probs(model, batch) - before
        desirable = torch.tensor([bool(sample.desirable) for sample in batch], device=ratios.device)
        losses = kto_loss(
            ratios, desirable, kl, spec.beta, spec.desirable_weight, spec.undesirable_weight
        )
        rewards = spec.beta * ratios.detach()
        beyond = torch.where(desirable, ratios - kl, kl - ratios).detach()
        return LossSum(
            losses.sum(),
            {
                "reward_chosen": _sum(rewards[desirable]),
                "reward_rejected": _sum(rewards[~desirable]),
                "accuracy": _sum(_right(beyond)),
                "kl": (kl * len(batch), len(batch)),
            },
        )

    def summarize(
        self, samples: Sequence[EncodedSample], outputs: Sequence[Any]
    ) -> dict[str, float]:
        """Return nothing."""
        del samples, outputs
        return {}


def _pair_sums(chosen: torch.Tensor, rejected: torch.Tensor) -> dict[str, tuple[float, int]]:
    chosen, rejected = chosen.detach(), rejected.detach()
    return {
        "reward_chosen": _sum(chosen),
        "reward_rejected": _sum(rejected),
        "accuracy": _sum(_right(chosen - rejected)),
    }


def _right(margins: torch.Tensor) -> torch.Tensor:
    """Return 1 for each positive margin, ½ for each zero (all are zero before training)."""
    return (torch.sign(margins) + 1) / 2


def _sum(values: torch.Tensor) -> tuple[float, int]:
    return float(values.sum()), len(values)


# Mismatched prompts and answers


def mismatched_partners(
    samples: Sequence[EncodedSample], seed: int
) -> dict[EncodedSample, EncodedSample]:
    """Pair every prompt with the answer of another sample.

    The partner is the next sample in a permutation by `seed` that has a different prompt: unpaired
    preferences often have several answers per prompt. The answer is truncated where prompt and
    answer together would exceed the longest sample.

    Args:
        samples: at least two.
        seed: the run's seed.

    Returns:
        For each sample, its prompt followed by the partner's answer, trained.
    """
    order: list[int] = (
        np.random.default_rng([seed, len(samples)]).permutation(len(samples)).tolist()
    )
    longest = max(len(sample) for sample in samples)
    prompts = [sample.input_ids[: _start(sample)].tobytes() for sample in samples]
    partners: dict[EncodedSample, EncodedSample] = {}
    for place, own in enumerate(order):
        following = (order[(place + step) % len(order)] for step in range(1, len(order)))
        next_one = order[(place + 1) % len(order)]
        other = next((i for i in following if prompts[i] != prompts[own]), next_one)
        partners[samples[own]] = _crossed(samples[own], samples[other], longest)
    return partners


def _start(sample: EncodedSample) -> int:
    """Return the index of the first answer token of an unpaired preference."""
    return int(sample.trained.argmax())


def _crossed(asked: EncodedSample, answered: EncodedSample, longest: int) -> EncodedSample:
    prompt = asked.input_ids[: _start(asked)]
    answer = answered.input_ids[answered.trained][: longest - len(prompt)]
    trained = np.repeat([False, True], [len(prompt), len(answer)])
    return EncodedSample(np.concatenate([prompt, answer]), trained, asked.origin)
