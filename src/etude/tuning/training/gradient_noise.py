"""Gradient noise scale: how many samples a step should have (McCandlish et al. 2018).

    B_noise = tr Σ / |G|²

with G the true gradient and Σ the covariance of one sample's. At a batch of B_noise samples, half
of a step's squared gradient is signal. Far below it, doubling the batch halves the steps that are
needed; far above, it costs twice the samples for the same steps (ibid., eq. 2.7 and 2.11; for plain
gradient descent, of which Adam's steps are a preconditioned form).

Both come from the micro-batches of a step, whose gradients are known while they are accumulated.
With micro-batch i of b_i samples, weight w_i in the step's loss (Σ w_i = 1) and mean gradient g_i,
and g = Σ w_i g_i,

    E Σ w_i |g_i|² = |G|² + tr Σ · Σ w_i / b_i
    E |g|²         = |G|² + tr Σ · Σ w_i² / b_i

so two equations give unbiased estimates of both: those of appendix A.1, for micro-batches of any
sizes. One step's are noisy; their means over many steps are divided, not their quotients averaged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

SIGNAL, NOISE = "grad_signal", "grad_noise"
"""Names of a step's estimates of |G|² and tr Σ in metrics.jsonl."""

LEAST_STEPS = 8
"""Steps with at least two micro-batches that an estimate needs."""

BLOCKS = 8
"""Blocks of steps that the jackknife leaves out in turn."""

FAR = 2.0
"""A batch this many times smaller or larger than the noise scale is worth changing."""


class MicroGradients:
    """The gradients of one step's micro-batches.

    Args:
        parameters: the trained weights, whose gradients accumulate.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self._parameters = parameters
        self._before: list[Tensor | None] = [None] * len(parameters)
        self._count = 0
        self._mean_square = self._single = self._whole = 0.0

    def add(self, samples: int, weight: float) -> None:
        """Take in the gradient that a micro-batch has just added.

        Args:
            samples: b, its samples.
            weight: w, its part of the step's loss.
        """
        square = 0.0
        for index, parameter in enumerate(self._parameters):
            if parameter.grad is None:
                continue
            before = self._before[index]
            own = parameter.grad if before is None else parameter.grad - before
            square += float(own.double().square().sum())
            self._before[index] = parameter.grad.clone()
        self._count += 1
        # The accumulated part is w g_i.
        self._mean_square += square / weight
        self._single += weight / samples
        self._whole += weight**2 / samples

    def estimates(self) -> dict[str, float]:
        """Return the step's estimates of |G|² and tr Σ by name; nothing from one micro-batch."""
        if self._count < 2:
            return {}
        square = sum(
            float(p.grad.double().square().sum()) for p in self._parameters if p.grad is not None
        )
        noise = (self._mean_square - square) / (self._single - self._whole)
        return {SIGNAL: square - noise * self._whole, NOISE: noise}


@dataclass(frozen=True)
class NoiseScale:
    """The gradient noise scale of a run."""

    samples: float | None
    """B_noise; None where the signal is too weak to be told from zero."""
    error: float
    """Its standard error, by the jackknife over blocks of steps; infinite without `samples`."""
    steps: int
    """Steps that it was estimated from: the second half of the run's."""
    batch: int
    """`train.batch_samples`."""

    def advice(self) -> str:
        """Return what it says about the size of the batch, in a sentence."""
        if self.samples is None:
            return (
                f"gradient noise scale: above what {self.steps} steps of {self.batch} samples can "
                "tell; a larger train.batch_samples would need proportionally fewer steps"
            )
        known = f"gradient noise scale: {self.samples:.0f} ± {self.error:.0f} samples"
        if self.batch * FAR < self.samples:
            return (
                f"{known}; train.batch_samples {self.batch} is far below: steps are mostly noise, "
                "and a larger batch (with a higher train.lr) needs proportionally fewer of them"
            )
        if self.batch > FAR * self.samples:
            return (
                f"{known}; train.batch_samples {self.batch} is far above: a smaller batch comes to "
                "the same loss with fewer samples"
            )
        return f"{known}; train.batch_samples {self.batch} is near it"

    def as_json(self) -> dict[str, Any]:
        """Return plain data for summary.json."""
        known = self.samples is not None
        return {
            "samples": self.samples,
            "error": self.error if known else None,
            "steps": self.steps,
            "batch": self.batch,
            "advice": self.advice(),
        }


def noise_scale(records: Sequence[Mapping[str, Any]], batch: int) -> NoiseScale | None:
    """Return the noise scale of a run from its records; None where too few steps tell of it.

    Args:
        records: of metrics.jsonl.
        batch: samples per step.
    """
    known = [(float(r[SIGNAL]), float(r[NOISE])) for r in records if SIGNAL in r and NOISE in r]
    known = known[len(known) // 2 :]
    if len(known) < LEAST_STEPS:
        return None
    whole = _quotient(known)
    # Block b of the jackknife is every eighth step from b on, left out.
    left_out = [
        _quotient([pair for i, pair in enumerate(known) if i % BLOCKS != block])
        for block in range(BLOCKS)
    ]
    parts = [part for part in left_out if part is not None]
    if whole is None or len(parts) < BLOCKS:
        return NoiseScale(None, math.inf, len(known), batch)
    middle = sum(parts) / BLOCKS
    error = math.sqrt((BLOCKS - 1) / BLOCKS * sum((part - middle) ** 2 for part in parts))
    if error > whole:
        return NoiseScale(None, math.inf, len(known), batch)
    return NoiseScale(whole, error, len(known), batch)


def _quotient(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Return Σ tr Σ / Σ |G|², or None if the signal's estimate is not positive."""
    signal = sum(one for one, _ in pairs)
    noise = sum(other for _, other in pairs)
    return max(0.0, noise) / signal if signal > 0 else None
