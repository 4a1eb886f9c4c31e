"""Default ranges of a search, by method: what the published sweeps agree on.

train.lr            adapters 1e-5 to 2e-3, full fine-tuning 1e-6 to 2e-4, IA³ 1e-4 to 2e-2, all on
                    a logarithmic scale. The rate decides most. Adapters need about ten times that
                    of full weights (Schulman et al. 2025, "LoRA Without Regret"), IA³ about ten
                    times LoRA's (Liu et al. 2022).
adapter.rank        4 to 64 by doubling, of kinds with a rank. With alpha / √rank a rate carries
                    over from rank to rank; with alpha / rank a higher rank wants a lower one
                    (arXiv 2602.06204), so both are searched.
train.batch_samples 8, 16, 32: larger ones mean fewer steps, which want a higher rate.
train.weight_decay  0 to 0.1, train.warmup_ratio 0 to 0.1: they matter little in short runs.

Variants of LoRA are not searched: tuned alike, nine of them peak within 1 to 2 % of each other
(arXiv 2602.04998).
A recipe's own value that lies outside widens the range, so that trial 0 is in it.
"""

from __future__ import annotations

from collections.abc import Iterator

from etude.tuning.config.recipe import Recipe
from etude.tuning.search.ranges import Range

RATES: dict[str, tuple[float, float]] = {
    "adapter": (1e-5, 2e-3),
    "ia3": (1e-4, 2e-2),
    "full": (1e-6, 2e-4),
}
"""Learning rates, lowest and highest, by what is trained."""

RANKS = (4, 8, 16, 32, 64)
BATCHES = (8, 16, 32)
_WITH_RANK = ("lora", "dora", "adalora")


def prior_ranges(recipe: Recipe) -> Iterator[Range]:
    """Yield the ranges to search around a recipe; its own values are their defaults."""
    train, kind = recipe.train, recipe.adapter.kind
    low, high = RATES.get(kind, RATES["adapter"])
    yield Range("train.lr", min(low, train.lr), max(high, train.lr), log=True, default=train.lr)
    if kind in _WITH_RANK:
        rank = recipe.adapter.rank
        yield Range("adapter.rank", choices=_with(RANKS, rank), default=rank)
    batch = train.batch_samples
    yield Range("train.batch_samples", choices=_with(BATCHES, batch), default=batch)
    for key, value in (
        ("train.weight_decay", train.weight_decay),
        ("train.warmup_ratio", train.warmup_ratio),
    ):
        yield Range(key, 0.0, max(0.1, value), default=value)


def _with(values: tuple[int, ...], own: int) -> tuple[int, ...]:
    return tuple(sorted({*values, own}))
