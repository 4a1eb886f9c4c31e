"""Sampling of tokens by a seed of its own.

A token is drawn from softmax(z / T) by the Gumbel-max rule: with independent gₖ = −log(Eₖ),
Eₖ ~ Exp(1), argmaxₖ (zₖ / T + gₖ) is k with probability softmax(z / T)ₖ (Gumbel 1954; Maddison et
al. 2014). So a decoder that takes the largest score samples where it is given perturbed ones. The
perturbations depend on the seed and the place in the answer alone: two models, such as a base and
its tuned version, are asked with the same luck.

With nucleus sampling (Holtzman et al. 2020) the draw is among the fewest most probable tokens whose
probabilities sum to at least p.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class SeededSampling:
    """A logits processor of transformers that turns greedy decoding into sampling.

    Args:
        temperature: T, above 0.
        top_p: the share of probability that is drawn from, above 0 and at most 1.
        seed: of the draws; None: another one each time.
    """

    def __init__(self, temperature: float, top_p: float = 1.0, seed: int | None = None) -> None:
        if temperature <= 0 or not 0 < top_p <= 1:
            raise ValueError(f"temperature {temperature}, top_p {top_p}: T > 0 and 0 < p <= 1")
        self._temperature, self._top_p = temperature, top_p
        # On the CPU, so that a seed gives the same draws on every device.
        self._generator = torch.Generator()
        if seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(seed)

    def __call__(self, input_ids: Any, scores: Tensor) -> Tensor:
        """Return the perturbed scores, (rows, vocabulary), float64; excluded tokens have -inf.

        Args:
            input_ids: not used.
            scores: logits of the next token, (rows, vocabulary).
        """
        del input_ids
        scaled = scores.double() / self._temperature
        if self._top_p < 1:
            scaled = _nucleus(scaled, self._top_p)
        waits = torch.empty(scaled.shape, dtype=torch.float64)
        waits.exponential_(generator=self._generator)
        return scaled - waits.log().to(scaled.device)


def _nucleus(scores: Tensor, top_p: float) -> Tensor:
    """Return the scores with -inf outside the fewest tokens whose probability is `top_p`."""
    ordered, places = scores.sort(dim=-1, descending=True, stable=True)
    probabilities = ordered.softmax(-1)
    before = probabilities.cumsum(-1) - probabilities
    # The most probable token stays, whatever rounding did to the sums.
    outside = before >= top_p
    outside[..., 0] = False
    return torch.empty_like(scores).scatter_(
        -1, places, ordered.masked_fill(outside, float("-inf"))
    )
