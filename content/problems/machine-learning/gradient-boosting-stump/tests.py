"""Tests of The best split of a boosted tree."""

import torch

from etude.practice.compare import Tolerance
from etude.practice.suite import Rng, Suite

suite = Suite(tolerance=Tolerance(rtol=1e-6, atol=1e-8))


def case(
    rng: Rng,
    count: int,
    width: int,
    decay: float = 1.0,
    fewest: int = 1,
    least: float = 0.0,
    step: float = 2.0,
    dtype=torch.float32,
):
    """Return samples whose gradients jump somewhere in one feature."""
    features = rng.randn(count, width, dtype=dtype)
    which = features[:, rng.integer(0, width)]
    gradients = rng.randn(count, dtype=dtype) + step * (which > rng.number(-0.8, 0.8))
    return features, gradients, rng.uniform(0.05, 0.25, (count,), dtype), decay, fewest, least


@suite.visible("six samples of two features")
def six(rng: Rng):
    return case(rng, 6, 2, decay=0.1, step=5.0)


@suite.visible("equal values")
def equal_shown(rng: Rng):
    _, *rest = case(rng, 8, 2, decay=0.0)
    return rng.integers(0, 3, (8, 2)).float(), *rest


@suite.visible("no split is worth it")
def nothing_shown(rng: Rng):
    return case(rng, 5, 2, least=1e4)


@suite.hidden("one sample", edge="N = 1", note="One sample cannot be split: the answer is None.")
def one(rng: Rng):
    return case(rng, 1, 3)


@suite.hidden("two samples", note="Two samples have one split in each feature.")
def two(rng: Rng):
    features, _, *rest = case(rng, 2, 1)
    return features, torch.tensor([-3.0, 4.0]), *rest


@suite.hidden("one feature", edge="F = 1", note="With one feature the answer is feature 0.")
def one_feature(rng: Rng):
    return case(rng, 40, 1)


@suite.hidden(
    "a constant feature beside another",
    edge="a constant feature",
    concept="equal values",
    note="A constant feature has no split: nothing is on its right.",
)
def constant(rng: Rng):
    features, *rest = case(rng, 30, 2)
    features[:, 0] = 1.5
    return features, *rest


@suite.hidden(
    "constant features only",
    edge="a constant feature",
    concept="equal values",
    note="Without an allowed split the answer is None.",
)
def all_constant(rng: Rng):
    features, *rest = case(rng, 12, 3)
    return torch.zeros_like(features) + rng.randn(3), *rest


@suite.hidden(
    "few different values",
    edge="equal values in a feature",
    concept="equal values",
    note="Samples with equal values go to the same side.",
)
def few_values(rng: Rng):
    _, *rest = case(rng, 200, 4, decay=0.0)
    return rng.integers(0, 4, (200, 4)).float(), *rest


@suite.hidden(
    "equal values that would be worth separating",
    edge="equal values in a feature",
    concept="equal values",
    note="A sum over a part of the samples with one value belongs to no threshold.",
)
def tempting(rng: Rng):
    values = torch.tensor([0.0] * 6 + [1.0] * 6)[:, None]
    gradients = torch.tensor([9.0] * 3 + [-9.0] * 3 + [1.0] * 6)
    order = rng.permutation(12)
    return values[order], gradients[order], torch.ones(12), 0.5, 1, 0.0


@suite.hidden(
    "values that are neighbours in float32",
    concept="threshold",
    note="The threshold is the largest value on the left. The middle may be rounded to the right.",
)
def neighbours(rng: Rng):
    start = torch.tensor(1.0 + rng.integer(0, 100) / 128)
    values = torch.stack([start, torch.nextafter(start, torch.tensor(9.0))])
    which = rng.integers(0, 2, (30,))
    which[:2] = torch.tensor([0, 1])
    return values[which][:, None], rng.randn(30) + 4 * which, torch.ones(30), 1.0, 1, 0.0


@suite.hidden(
    "many samples needed on each side",
    concept="fewest",
    note="A split that leaves fewer than `fewest` samples on a side is not allowed.",
)
def fewest(rng: Rng):
    features, gradients, *rest = case(rng, 40, 3, step=0.0, fewest=15)
    gradients[features.argmax(0)] += 30
    return features, gradients, *rest[:2], 15, 0.0


@suite.hidden(
    "just enough samples for both sides",
    concept="fewest",
    note="With N = 2 m the only split that is allowed leaves m on each side.",
)
def just_enough(rng: Rng):
    return case(rng, 12, 3, decay=0.0, fewest=6)


@suite.hidden("too few samples for both sides", concept="fewest", note="With N < 2 m: None.")
def too_few(rng: Rng):
    return case(rng, 11, 3, fewest=6)


@suite.hidden(
    "two equal columns",
    concept="ties",
    note="Of equal gains the one with the smallest feature is taken.",
)
def twins(rng: Rng):
    features, *rest = case(rng, 50, 2)
    return torch.stack([rng.randn(50), features[:, 0], features[:, 0]], 1), *rest


@suite.hidden(
    "gains that are the same from both ends",
    concept="ties",
    note="Of equal gains in one feature the smallest threshold is taken.",
)
def mirrored(rng: Rng):
    half = torch.tensor([6.0, 1.0, -3.0, -4.0]) * rng.choice([1, 2, -1, -2])
    order = rng.permutation(8)
    values = torch.arange(8.0) - rng.integer(0, 20)
    gradients = torch.cat([half, half.flip(0)])
    return values[order, None], gradients[order], torch.ones(8), 0.0, 1, 0.0


@suite.hidden(
    "a column and its opposite",
    concept="ties",
    note="The same two leaves, left and right exchanged: the smallest feature is taken.",
)
def opposite(rng: Rng):
    values = torch.arange(8.0)
    gradients = torch.tensor([5.0, 6.0, -1.0, -2.0, 1.0, -1.0, 0.0, 1.0]) * rng.choice([1, -3])
    order = rng.permutation(8)
    return torch.stack([-values, values], 1)[order], gradients[order], torch.ones(8), 1.0, 1, 0.0


@suite.hidden("no decay", note="With λ = 0 the value of a leaf is -G / H.")
def no_decay(rng: Rng):
    return case(rng, 60, 3, decay=0.0)


@suite.hidden("a large decay", note="λ stands in all three denominators and in both leaves.")
def large_decay(rng: Rng):
    return case(rng, 60, 3, decay=25.0)


@suite.hidden(
    "hessians of very different sizes",
    note="The denominators are sums of hessians, not numbers of samples.",
)
def uneven(rng: Rng):
    features, gradients, hessians, *rest = case(rng, 80, 3)
    return features, gradients, hessians * rng.randn(80, scale=2.0).exp(), *rest


@suite.hidden(
    "gradients far from 0",
    concept="precision",
    note="Large sums cancel in the gain. In float32 nothing is left of it.",
)
def far(rng: Rng):
    features, gradients, *_ = case(rng, 5000, 3, step=0.5)
    return features, gradients + 100, torch.ones(5000), 0.0, 1, 0.0


@suite.hidden(
    "20 000 samples",
    concept="complexity",
    note="Sort once, then all sums on the left come from one running sum.",
)
def many(rng: Rng):
    return case(rng, 20_000, 8, fewest=20)


@suite.hidden(
    "a gain below the least", concept="least", note="A gain must be above γ to be worth a split."
)
def below(rng: Rng):
    return case(rng, 30, 2, step=0.0, least=500.0)


@suite.hidden("float64", concept="dtypes", tolerance=Tolerance(rtol=1e-9, atol=1e-10))
def double(rng: Rng):
    return case(rng, 70, 4, dtype=torch.float64)


@suite.hidden("transposed views", concept="memory layout")
def transposed(rng: Rng):
    features, *rest = case(rng, 25, 4)
    return features.T.contiguous().T, *rest


@suite.generated("any node", times=4)
def nodes(rng: Rng):
    return case(
        rng,
        rng.integer(20, 400),
        rng.integer(1, 10),
        decay=rng.number(0, 3),
        fewest=rng.integer(1, 8),
        step=rng.number(-3, 3),
    )
