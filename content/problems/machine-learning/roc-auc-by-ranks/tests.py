"""Tests of ROC AUC by ranks."""

import math

import torch

from etude.practice.compare import Tolerance
from etude.practice.suite import Rng, Suite

suite = Suite(tolerance=Tolerance(rtol=1e-9, atol=1e-12))


def both(rng: Rng, count: int, share: float = 0.5) -> torch.Tensor:
    """Return labels of which at least one is 1 and one is 0."""
    labels = rng.bools((count,), share).long()
    labels[:2] = torch.tensor([0, 1])
    return labels[rng.permutation(count)]


@suite.visible("six samples")
def six(rng: Rng):
    return rng.randn(6), both(rng, 6)


@suite.visible("ties")
def ties_shown(rng: Rng):
    return rng.integers(0, 3, (8,)) / 4, both(rng, 8)


@suite.visible("one class", raises=ValueError)
def one_class_shown(rng: Rng):
    return rng.randn(3), torch.zeros(3, dtype=torch.int64)


@suite.hidden("two samples", edge="N = 2", note="With one pair the area is 0, 1/2 or 1.")
def two(rng: Rng):
    return rng.randn(2), both(rng, 2)


@suite.hidden(
    "two samples with equal scores",
    edge="N = 2",
    concept="ties",
    note="A pair with equal scores counts half.",
)
def two_equal(rng: Rng):
    return rng.randn(1).repeat(2), both(rng, 2)


@suite.hidden(
    "all scores equal",
    edge="all scores equal",
    concept="ties",
    note="Scores that say nothing have the area 1/2, in whatever order the samples stand.",
)
def all_equal(rng: Rng):
    return torch.full((40,), rng.number(-1, 1)), both(rng, 40, 0.3).sort().values


@suite.hidden(
    "few different scores",
    concept="ties",
    note="Equal scores share the mean of their ranks, not the first or the last.",
)
def few_values(rng: Rng):
    return rng.integers(0, 5, (300,)).double(), both(rng, 300, 0.4)


@suite.hidden(
    "ties inside one class only",
    concept="ties",
    note="Equal scores of one class make no pair, so they change nothing.",
)
def ties_inside(rng: Rng):
    scores = rng.integers(0, 4, (60,)) * 2
    labels = both(rng, 60)
    return scores + labels, labels


@suite.hidden("perfect scores", note="All positive above all negative is 1.")
def perfect(rng: Rng):
    labels = both(rng, 30)
    return labels + rng.uniform(0, 0.9, (30,)), labels


@suite.hidden("scores that are upside down", note="The higher score should be the positive one.")
def upside_down(rng: Rng):
    labels = both(rng, 30)
    return rng.uniform(0, 1.5, (30,)) - labels, labels


@suite.hidden("one positive sample among many", note="The classes may be of any sizes.")
def rare(rng: Rng):
    labels = torch.zeros(500, dtype=torch.int64)
    labels[rng.integer(0, 500)] = 1
    return rng.randn(500), labels


@suite.hidden(
    "200 000 samples",
    concept="complexity",
    note="Sort once and work with ranks. All pairs are far too many.",
)
def many(rng: Rng):
    labels = both(rng, 200_000)
    return rng.randn(200_000) + 0.5 * labels, labels


@suite.hidden(
    "200 000 samples with ties",
    concept="precision",
    note="Sums of ranks go beyond what float32 can count: 2 to the power of 24.",
)
def many_ties(rng: Rng):
    labels = both(rng, 200_000, 0.3)
    return rng.integers(0, 1000, (200_000,)) + 100 * labels, labels


@suite.hidden(
    "scores that differ in the last digits",
    concept="dtypes",
    note="Conversion to float32 makes different scores equal.",
)
def close(rng: Rng):
    labels = both(rng, 200)
    return 1 + rng.permutation(200) * 1e-13, labels


@suite.hidden(
    "large whole numbers",
    concept="dtypes",
    note="int64 has more digits than float64. Sort the scores as they are.",
)
def whole(rng: Rng):
    return 2**60 + rng.integers(0, 40, (200,)), both(rng, 200)


@suite.hidden("infinite scores", note="Infinity equals infinity; differences of them are NaN.")
def infinite(rng: Rng):
    scores = rng.randn(30)
    scores[rng.permutation(30)[:12]] = torch.tensor([math.inf, -math.inf] * 6)
    return scores, both(rng, 30)


@suite.hidden("zeros of both signs", note="-0.0 equals 0.0.")
def zeros(rng: Rng):
    scores = torch.tensor([0.0, -0.0, -1.0, 1.0])[rng.integers(0, 4, (40,))]
    return scores, both(rng, 40)


@suite.hidden(
    "only positive samples",
    edge="one class only",
    raises=ValueError,
    note="Without a pair the area is 0 / 0. It is not 1/2.",
)
def only_positive(rng: Rng):
    return rng.randn(5), torch.ones(5, dtype=torch.int64)


@suite.hidden(
    "no samples", edge="one class only", raises=ValueError, note="Without samples there is no pair."
)
def none(rng: Rng):
    return torch.empty(0), torch.empty(0, dtype=torch.int64)


@suite.hidden("a NaN", raises=ValueError, note="NaN has no place in an order.")
def nan(rng: Rng):
    scores = rng.randn(20)
    scores[rng.integer(0, 20)] = math.nan
    return scores, both(rng, 20)


@suite.hidden("views with strides", concept="memory layout")
def strided(rng: Rng):
    labels = both(rng, 50)
    return rng.randn(50, 3)[:, 1], torch.stack([1 - labels, labels], 1)[:, 1]


@suite.generated("any sizes", times=3)
def sizes(rng: Rng):
    count = rng.integer(10, 2000)
    labels = both(rng, count, rng.number(0.1, 0.9))
    return (rng.randn(count) * 10 + 8 * labels).round(), labels
