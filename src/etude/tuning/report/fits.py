"""Largest model that fits into memory, by fine-tuning method.

The answer is given by example, the largest of a row of well-known models whose memory estimate with
the recipe's defaults stays under the memory there is. The speed is an upper bound: a token costs at
least 4 floating-point operations a parameter with frozen weights (2 forward, 2 for the gradient of
the activations) and 6 where the gradients of the weights are computed too.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch

from etude.tuning.config.recipe import Recipe
from etude.tuning.memory.estimate import MemoryEstimate, estimate_memory
from etude.tuning.memory.fit import METHODS, Method
from etude.tuning.memory.model_configs import known_config

OPERATIONS = {"full": 6, "lora": 4, "qlora": 4}
"""Minimum floating-point operations per token and parameter."""

EXAMPLES = (
    "smollm2-135m",
    "smollm2-360m",
    "smollm2-1.7b",
    "llama-3.2-3b",
    "llama-3.1-8b",
    "qwen2.5-14b",
    "qwen2.5-32b",
    "llama-3.1-70b",
)
"""Models of `memory.model_configs.KNOWN`, the smallest first."""


@dataclass(frozen=True)
class Fit:
    """The largest known model that one method can fine-tune here."""

    method: str
    model: str | None
    """None: not even the smallest."""

    parameters: int
    memory: int
    """Memory it needs including the process, in bytes."""

    tokens_per_s: float | None
    """Upper bound by arithmetic alone; None if the rate is unknown."""


def what_fits(memory: int, dtype: torch.dtype, gflops: float | None) -> list[Fit]:
    """Return, for each method, the largest of `EXAMPLES` that fits, with the recipe's defaults.

    Args:
        memory: bytes that the process may use.
        dtype: of the forward pass.
        gflops: measured rate of a matrix product in that precision.
    """
    found: list[Fit] = []
    tried = len(EXAMPLES)
    for method in METHODS:
        # Each method takes more than the one before it, so no larger model can fit.
        tried = _count_fitting(method, dtype, memory, tried)
        if not tried:
            found.append(Fit(method, None, 0, 0, None))
            continue
        name = EXAMPLES[tried - 1]
        estimate = _estimate(name, method, dtype)
        rate = gflops and gflops * 1e9 / (OPERATIONS[method] * estimate.parameters)
        found.append(Fit(method, name, estimate.parameters, estimate.total, rate))
    return found


def _count_fitting(method: Method, dtype: torch.dtype, memory: int, count: int) -> int:
    """Return how many of the first `count` examples fit: by bisection, for estimates are slow."""
    low, high = 0, count
    while low < high:
        middle = (low + high + 1) // 2
        if _estimate(EXAMPLES[middle - 1], method, dtype).total <= memory:
            low = middle
        else:
            high = middle - 1
    return low


@cache
def _estimate(name: str, method: Method, dtype: torch.dtype) -> MemoryEstimate:
    """Return the estimate that `etude memory` shows for a well-known model."""
    recipe = Recipe.parse({"data": {"train": "-"}, "eval": {"generate": 0}}).with_method(method)
    return estimate_memory(known_config(name), recipe, dtype)
