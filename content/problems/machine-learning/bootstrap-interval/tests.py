"""Tests of A bootstrap interval."""

import torch

from etude.practice.compare import Tolerance
from etude.practice.suite import Rng, Suite

# Arguments: values, indices, the statistic's name in driver.py, and the level.
suite = Suite(tolerance=Tolerance(rtol=1e-5, atol=1e-7))


def case(rng: Rng, values: torch.Tensor, resamples: int, name: str, level: float):
    count = len(values)
    return values, rng.integers(0, count, (resamples, count)), name, level


@suite.visible("the mean of ten numbers")
def ten(rng: Rng):
    return case(rng, rng.randn(10), 20, "mean", 0.8)


@suite.visible("the accuracy of pairs of prediction and label")
def pairs(rng: Rng):
    return case(rng, rng.integers(0, 3, (12, 2)).float(), 15, "accuracy", 0.9)


@suite.visible("a level of 95 instead of 0.95", raises=ValueError)
def per_cent_shown(rng: Rng):
    return case(rng, rng.randn(4), 6, "mean", 95.0)


@suite.hidden("one resample", edge="R = 1", note="Of one statistic every quantile is itself.")
def one_resample(rng: Rng):
    return case(rng, rng.randn(8), 1, "mean", 0.9)


@suite.hidden(
    "two resamples",
    concept="quantiles",
    note="The position is q (R - 1): between two statistics the quantile interpolates.",
)
def two_resamples(rng: Rng):
    return case(rng, rng.randn(8), 2, "mean", 0.9)


@suite.hidden("one sample", edge="N = 1", note="Every resample of one sample is this sample.")
def one_sample(rng: Rng):
    return case(rng, rng.randn(1), 10, "mean", 0.95)


@suite.hidden(
    "a position that is whole",
    concept="quantiles",
    note="With R = 41 and a level of 0.5 the positions are 10 and 30.",
)
def whole(rng: Rng):
    return case(rng, rng.randn(15), 41, "mean", 0.5)


@suite.hidden(
    "few resamples and a high level",
    concept="quantiles",
    note="Interpolate linearly between the two statistics around the position.",
)
def few(rng: Rng):
    return case(rng, rng.randn(20), 13, "mean", 0.99)


@suite.hidden("a low level", concept="quantiles", note="A low level gives a narrow interval.")
def low_level(rng: Rng):
    return case(rng, rng.randn(20), 30, "mean", 0.1)


@suite.hidden(
    "a skewed statistic",
    concept="percentile interval",
    note="The interval is read off the sorted statistics. It need not be symmetric.",
)
def skewed(rng: Rng):
    return case(rng, rng.randn(30).exp(), 200, "largest", 0.9)


@suite.hidden("the median", note="Any statistic will do; it is called once for each resample.")
def median(rng: Rng):
    return case(rng, rng.randn(25), 100, "median", 0.95)


@suite.hidden(
    "the difference of two models",
    concept="paired resampling",
    note="Both models' scores of a sample must be drawn together: take whole rows.",
)
def difference(rng: Rng):
    common = rng.randn(40, scale=3.0)
    rows = torch.stack([common + 0.1, common], 1) + rng.randn(40, 2, scale=0.1)
    return case(rng, rows, 100, "difference", 0.95)


@suite.hidden(
    "a correlation",
    concept="paired resampling",
    note="Columns that are drawn apart have no correlation left: take whole rows.",
)
def correlated(rng: Rng):
    x = rng.randn(30)
    return case(rng, torch.stack([x, x + rng.randn(30, scale=0.3)], 1), 80, "correlation", 0.9)


@suite.hidden(
    "as many columns as samples",
    concept="paired resampling",
    note="An index without a comma takes rows.",
)
def square(rng: Rng):
    return case(rng, rng.randn(2, 2), 12, "difference", 0.8)


@suite.hidden(
    "a statistic that looks at the order",
    note="The entries of a resample stand in the order of its indices.",
)
def ordered(rng: Rng):
    return case(rng, rng.randn(12), 40, "slope", 0.9)


@suite.hidden(
    "large statistics that are close together",
    concept="precision",
    tolerance=Tolerance(rtol=1e-10, atol=0.0),
    note="Statistics are Python floats, which is float64: do not put them into a float32 tensor.",
)
def large(rng: Rng):
    return case(rng, 1e7 + rng.randn(20, dtype=torch.float64), 60, "mean", 0.9)


@suite.hidden("equal values", note="If nothing varies, the interval is one point.")
def equal(rng: Rng):
    return case(rng, torch.full((9,), rng.number(-3, 3)), 20, "median", 0.95)


@suite.hidden(
    "a statistic that is NaN for some resamples",
    edge="a statistic that is NaN",
    raises=ValueError,
    note="Sorting puts NaN somewhere, and quantiles of the rest mean something else.",
)
def nan(rng: Rng):
    values = torch.cat([rng.uniform(-9, -8, (1,)), rng.uniform(1, 2, (11,))])
    made, indices, *rest = case(rng, values, 50, "root", 0.9)
    indices[7] = 0
    return made, indices, *rest


@suite.hidden(
    "a statistic that is NaN for all resamples",
    edge="a statistic that is NaN",
    raises=ValueError,
    note="The correlation of a constant is 0 / 0.",
)
def all_nan(rng: Rng):
    rows = torch.stack([rng.randn(6), torch.ones(6)], 1)
    return case(rng, rows, 10, "correlation", 0.9)


@suite.hidden(
    "a statistic that is infinite", raises=ValueError, note="Ask for finite, not just for NaN."
)
def infinite(rng: Rng):
    made, indices, *rest = case(rng, torch.tensor([0.0, 1.0, 2.0, 4.0]), 30, "inverse", 0.5)
    indices[3] = 0
    return made, indices, *rest


@suite.hidden("a level of 0", raises=ValueError, note="The level lies strictly between 0 and 1.")
def zero_level(rng: Rng):
    return case(rng, rng.randn(5), 10, "mean", 0.0)


@suite.hidden("a level of 1", raises=ValueError, note="The level lies strictly between 0 and 1.")
def full_level(rng: Rng):
    return case(rng, rng.randn(5), 10, "mean", 1.0)


@suite.hidden("transposed views", concept="memory layout")
def transposed(rng: Rng):
    values, indices, *rest = case(rng, rng.randn(2, 10).T, 25, "difference", 0.9)
    return values, indices.T.contiguous().T, *rest


@suite.generated("any sizes", times=3)
def sizes(rng: Rng):
    values = rng.randn(rng.integer(5, 100), scale=rng.number(0.5, 5))
    return case(
        rng, values, rng.integer(10, 400), rng.choice(["mean", "total"]), rng.number(0.3, 0.99)
    )
