"""Tests of Create TensorDataset."""

import torch

from etude.practice.suite import Rng, Suite

suite = Suite()


@suite.visible("three samples of two features")
def three(rng: Rng):
    return rng.randn(3, 2), torch.tensor([0, 1, 0])


@suite.visible("more labels than samples", raises=ValueError)
def unequal_shown(rng: Rng):
    return rng.randn(2, 2), torch.tensor([0, 1, 0])


@suite.hidden(
    "one sample",
    edge="N = 1",
    note="One sample is still a dataset: N is 1, and the first dimension stays.",
)
def one(rng: Rng):
    return rng.randn(1, 4), rng.integers(0, 3, (1,))


@suite.hidden(
    "no samples",
    edge="N = 0",
    note="An empty dataset is allowed; its tensors keep their shapes (0, F) and (0,).",
)
def none(rng: Rng):
    return torch.empty(0, 5), torch.empty(0, dtype=torch.int64)


@suite.hidden("one feature", edge="F = 1", note="With one feature the shape is (N, 1), not (N,).")
def single(rng: Rng):
    return rng.randn(6, 1), rng.integers(0, 3, (6,))


@suite.hidden(
    "float64 features", concept="dtypes", note="Keep the types of both tensors as they are."
)
def double(rng: Rng):
    return rng.randn(5, 3, dtype=torch.float64), rng.integers(0, 3, (5,))


@suite.hidden(
    "half features, int32 labels",
    concept="dtypes",
    note="Keep the types of both tensors as they are.",
)
def half(rng: Rng):
    return rng.randn(5, 3, dtype=torch.float16), rng.integers(0, 3, (5,), dtype=torch.int32)


@suite.hidden(
    "float labels", concept="dtypes", note="Labels of a regression are floating-point numbers."
)
def regression(rng: Rng):
    return rng.randn(7, 3), rng.randn(7)


@suite.hidden("features that are a transposed view", concept="memory layout")
def transposed(rng: Rng):
    return rng.randn(3, 8).T, rng.integers(0, 3, (8,))


@suite.hidden(
    "fewer labels than samples",
    raises=ValueError,
    note="Compare the first dimensions before anything else.",
)
def unequal(rng: Rng):
    return rng.randn(4, 2), rng.integers(0, 3, (3,))


@suite.hidden(
    "labels but no samples",
    raises=ValueError,
    note="Zero samples and one label do not match either.",
)
def unequal_empty(rng: Rng):
    return torch.empty(0, 2), torch.zeros(1, dtype=torch.int64)


@suite.generated("any size", times=3)
def sizes(rng: Rng):
    count, width = rng.integer(2, 1001), rng.integer(1, 65)
    return rng.randn(count, width), rng.integers(0, 10, (count,))
