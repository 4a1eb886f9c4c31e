"""Tests of Principal components by SVD."""

import torch

from etude.practice.compare import Tolerance
from etude.practice.suite import Rng, Suite

suite = Suite(tolerance=Tolerance(rtol=1e-3, atol=1e-4))
EXACT = Tolerance(rtol=1e-6, atol=1e-6)


def data(
    rng: Rng, samples: int, width: int, scales: list[float], mean: float = 1.0, dtype=torch.float32
) -> torch.Tensor:
    """Return samples with these singular values, and components whose largest entry is clear."""
    rank = len(scales)
    left = rng.randn(samples, rank, dtype=torch.float64)
    left = torch.linalg.qr(left - left.mean(0)).Q
    while True:
        right = torch.linalg.qr(rng.randn(width, rank, dtype=torch.float64)).Q
        sizes = right.abs().sort(dim=0, descending=True).values
        if width == 1 or ((sizes[0] - sizes[1]) / sizes[0]).min() > 2e-3:
            break
    spread = (left * torch.tensor(scales, dtype=torch.float64)) @ right.T
    return (spread + mean * rng.randn(width, dtype=torch.float64)).to(dtype)


def falling(count: int, first: float = 10.0, by: float = 0.7) -> list[float]:
    return [first * by**k for k in range(count)]


@suite.visible("five samples of three features")
def five(rng: Rng):
    return data(rng, 5, 3, [5.0, 3.0, 1.0]), 2


@suite.visible("all samples equal", raises=ValueError)
def equal_shown(rng: Rng):
    return rng.randn(1, 3).expand(4, 3).clone(), 1


@suite.hidden(
    "fewer samples than features",
    edge="N < F",
    note="With N < F there are N singular values; the sum over all of them is still the variance.",
)
def wide(rng: Rng):
    return data(rng, 6, 40, falling(5)), 4


@suite.hidden(
    "as many components as there can be",
    edge="N < F",
    note="Centred samples span N - 1 directions, so K may be N - 1.",
)
def full(rng: Rng):
    return data(rng, 5, 9, falling(4)), 4


@suite.hidden(
    "very many features",
    edge="N < F",
    concept="thin SVD",
    note="Neither the covariance nor the whole of V fits into memory: full_matrices=False.",
)
def very_wide(rng: Rng):
    return data(rng, 10, 20_000, falling(6, 300.0)), 3


@suite.hidden("one feature", edge="F = 1", note="One feature has one direction: [[1.]].")
def one_feature(rng: Rng):
    return data(rng, 7, 1, [3.0]), 1


@suite.hidden("two samples", edge="N = 2", note="Two points vary along the line between them.")
def two_samples(rng: Rng):
    return data(rng, 2, 4, [3.0]), 1


@suite.hidden(
    "the first component only",
    edge="count = 1",
    concept="explained variance",
    note="The ratio is of the variance of all directions, not of those that are returned.",
)
def one_component(rng: Rng):
    return data(rng, 30, 5, falling(5, by=0.85)), 1


@suite.hidden(
    "all components of tall data",
    concept="explained variance",
    note="All ratios together are 1, and they are squares of singular values.",
)
def all_components(rng: Rng):
    return data(rng, 50, 6, falling(6)), 6


@suite.hidden(
    "components whose largest entry is negative as often as not",
    concept="sign rule",
    note="The entry of the largest magnitude decides the sign of each component by itself.",
)
def signs(rng: Rng):
    return data(rng, 60, 12, falling(10)), 10


@suite.hidden(
    "a mean that is far from 0",
    concept="centring",
    note="Without centring, the first component points at the mean.",
)
def shifted(rng: Rng):
    return data(rng, 40, 4, falling(4), mean=50.0), 3


@suite.hidden(
    "a mean a million times the spread",
    concept="centring",
    tolerance=EXACT,
    note="Take the mean off before anything is multiplied, the projections as well.",
)
def far(rng: Rng):
    return data(rng, 40, 4, falling(4), mean=1e6, dtype=torch.float64), 3


@suite.hidden(
    "singular values from 1 to a ten-millionth",
    concept="numerical accuracy",
    tolerance=EXACT,
    note="The covariance squares the singular values, and loses those below 1e-8 of the first.",
)
def ill_conditioned(rng: Rng):
    return data(rng, 300, 30, [1.0, 0.3, 1e-2, 1e-4, 1e-6, 1e-7], dtype=torch.float64), 6


@suite.hidden(
    "columns of very different sizes",
    note="Columns are centred, not scaled: large ones count for more.",
)
def unequal_columns(rng: Rng):
    columns = torch.tensor([100.0, 10.0, 1.0, 0.1])
    return rng.randn(40, 4) * columns, 2


@suite.hidden(
    "float64", concept="dtypes", tolerance=Tolerance(rtol=1e-9, atol=1e-10), note="Keep the type."
)
def double(rng: Rng):
    return data(rng, 20, 7, falling(7), dtype=torch.float64), 5


@suite.hidden("a transposed view", concept="memory layout")
def transposed(rng: Rng):
    return data(rng, 15, 6, falling(6)).T.contiguous().T, 3


@suite.hidden("one sample", raises=ValueError, note="One sample has no variance, and N - 1 is 0.")
def one_sample(rng: Rng):
    return rng.randn(1, 4), 1


@suite.hidden("as many components as samples", raises=ValueError, note="K is at most N - 1.")
def too_many(rng: Rng):
    return data(rng, 4, 8, falling(3)), 4


@suite.hidden("more components than features", raises=ValueError, note="K is at most F.")
def too_many_features(rng: Rng):
    return data(rng, 20, 3, falling(3)), 4


@suite.hidden("no components", raises=ValueError, note="K is at least 1.")
def no_components(rng: Rng):
    return data(rng, 5, 3, falling(3)), 0


@suite.generated("any sizes", times=3)
def sizes(rng: Rng):
    samples, width = rng.integer(12, 80), rng.integer(10, 60)
    return data(rng, samples, width, falling(10)), rng.integer(2, 9)
