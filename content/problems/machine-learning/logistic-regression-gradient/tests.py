"""Tests of Loss and gradient of logistic regression."""

import torch

from etude.practice.compare import Tolerance
from etude.practice.suite import Rng, Suite

suite = Suite(tolerance=Tolerance(rtol=1e-4, atol=2e-6))
# Nothing cancels in these tests, so that a relative error is what counts.
RELATIVE = Tolerance(rtol=1e-4, atol=1e-35)


def case(rng: Rng, count: int, width: int, decay: float = 0.1, dtype=torch.float32, scale=1.0):
    features = rng.randn(count, width, dtype=dtype, scale=scale)
    labels = rng.integers(0, 2, (count,))
    return features, labels, rng.randn(width, dtype=dtype), rng.randn(dtype=dtype), decay


def confident(rng: Rng, count: int, margin: float, dtype=torch.float32):
    """Return samples that are all right, each with about the same margin, none cancelling."""
    labels = rng.integers(0, 2, (count,))
    labels[0] = 0
    sign = 2 * labels - 1
    features = sign[:, None] * rng.uniform(0.9, 1.1, (count, 4), dtype)
    weight = torch.full((4,), margin / 4, dtype=dtype)
    return features, labels, weight, torch.zeros((), dtype=dtype), 0.0


@suite.visible("four samples of two features")
def four(rng: Rng):
    return case(rng, 4, 2)


@suite.visible("one confident sample, right and wrong")
def confident_shown(rng: Rng):
    features = torch.tensor([[1.0], [-1.0]])
    weight = torch.tensor([float(rng.integer(200, 300))])
    return features, torch.tensor([1, 1]), weight, torch.tensor(0.5), 0.0


@suite.hidden("one sample", edge="N = 1", note="The mean over one sample is its own loss.")
def one_sample(rng: Rng):
    return case(rng, 1, 5)


@suite.hidden("one feature", edge="F = 1", note="The weight has the shape (1,), its gradient too.")
def one_feature(rng: Rng):
    return case(rng, 9, 1)


@suite.hidden("no decay", edge="decay = 0", note="Without decay only the data count.")
def no_decay(rng: Rng):
    return case(rng, 8, 3, decay=0.0)


@suite.hidden(
    "a large decay",
    concept="weight decay",
    note="The penalty is half of λ times the sum of squares, not divided by N, without the bias.",
)
def large_decay(rng: Rng):
    features, labels, weight, bias, _ = case(rng, 10, 4)
    return features, labels, weight, bias + 3, 7.5


@suite.hidden("all labels 0", note="With one class only, loss and gradient are defined as ever.")
def all_zero(rng: Rng):
    features, labels, *rest = case(rng, 6, 3)
    return features, torch.zeros_like(labels), *rest


@suite.hidden("all labels 1", note="With one class only, loss and gradient are defined as ever.")
def all_one(rng: Rng):
    features, labels, *rest = case(rng, 6, 3)
    return features, torch.ones_like(labels), *rest


@suite.hidden(
    "wrong with great confidence",
    concept="numerical stability",
    note="A sample far on the wrong side has a loss of about |z|: not infinite, not capped.",
)
def far_wrong(rng: Rng):
    features, labels, weight, bias, _ = confident(rng, 8, -9000.0)
    return features, labels, weight, bias, 0.0


@suite.hidden(
    "far on both sides",
    concept="numerical stability",
    note="exp overflows for large arguments. Use functions that never take it of a large number.",
)
def far(rng: Rng):
    features, labels, weight, bias, decay = case(rng, 30, 4, scale=500.0)
    return features, labels, weight, bias, decay


@suite.hidden(
    "right with great confidence",
    concept="numerical stability",
    tolerance=RELATIVE,
    note="1 - σ(z) is 0 in float32 for z = 20. Write loss and gradient so that nothing is taken "
    "from 1.",
)
def right(rng: Rng):
    return confident(rng, 6, 25.0)


@suite.hidden(
    "right with greater confidence",
    concept="numerical stability",
    tolerance=RELATIVE,
    note="log(1 + e) is 0 for a small e. log1p(e) is not.",
)
def very_right(rng: Rng):
    return confident(rng, 3, 50.0)


@suite.hidden(
    "right with great confidence in float64",
    concept="numerical stability",
    tolerance=RELATIVE,
    note="In float64 the same happens at z = 40.",
)
def right_double(rng: Rng):
    return confident(rng, 5, 48.0, torch.float64)


@suite.hidden("many samples", note="Divide by the number of samples, data and gradient alike.")
def many(rng: Rng):
    return case(rng, 2000, 10)


@suite.hidden(
    "float64", concept="dtypes", note="Keep the type.", tolerance=Tolerance(rtol=1e-10, atol=1e-12)
)
def double(rng: Rng):
    return case(rng, 20, 5, dtype=torch.float64)


@suite.hidden("transposed views", concept="memory layout")
def transposed(rng: Rng):
    features, labels, weight, bias, decay = case(rng, 5, 7)
    return features.T.contiguous().T, labels.repeat(2, 1).T[:, 0], weight, bias, decay


@suite.generated("any sizes", times=3)
def sizes(rng: Rng):
    return case(rng, rng.integer(2, 200), rng.integer(2, 30), decay=rng.number(0, 2))
