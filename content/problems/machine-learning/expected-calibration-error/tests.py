"""Tests of Expected calibration error."""

import torch

from etude.practice.compare import Tolerance
from etude.practice.suite import Rng, Suite

suite = Suite(tolerance=Tolerance(rtol=1e-4, atol=2e-6))


def case(
    rng: Rng,
    confidence: torch.Tensor,
    classes: int,
    bins: int,
    accuracy: float = 0.6,
    dtype=torch.float32,
):
    """Return rows with these largest entries, each at a random place, and random labels."""
    confidence = confidence.double()
    distance = confidence - torch.round(confidence * bins) / bins
    # Exactly at an edge is clear, a little beside it is not.
    confidence = confidence + 5e-5 * distance.sign() * (distance.abs() < 5e-5)
    count = len(confidence)
    rest = rng.uniform(0.9, 1.0, (count, classes - 1), torch.float64)
    rest = rest / rest.sum(1, keepdim=True) * (1 - confidence)[:, None]
    rows = torch.cat([confidence[:, None], rest], 1)
    shift = rng.integers(0, classes, (count,))
    place = (torch.arange(classes) - shift[:, None]) % classes
    other = rng.integers(1, classes, (count,))
    labels = (shift + other * ~rng.bools((count,), accuracy)) % classes
    return rows.gather(1, place).to(dtype), labels, bins


def spread(rng: Rng, count: int, classes: int) -> torch.Tensor:
    """Return confidences all over what a row of `classes` can have."""
    return rng.uniform(1.2 / classes if classes > 2 else 0.52, 0.999, (count,), torch.float64)


@suite.visible("six samples in four bins")
def six(rng: Rng):
    return case(rng, spread(rng, 6, 3), 3, 4)


@suite.visible("confidences at the edges of four bins")
def edges_shown(rng: Rng):
    return case(rng, torch.tensor([0.5, 0.75, 0.75, 1.0]), 3, 4)


@suite.visible("no samples", raises=ValueError)
def none_shown(rng: Rng):
    return torch.empty(0, 3), torch.empty(0, dtype=torch.int64), 5


@suite.hidden("one sample", edge="N = 1", note="One sample makes one bin, and its gap the error.")
def one(rng: Rng):
    return case(rng, spread(rng, 1, 4), 4, 10)


@suite.hidden(
    "one bin",
    edge="one bin",
    note="With one bin the error is the difference of mean accuracy and mean confidence.",
)
def one_bin(rng: Rng):
    return case(rng, spread(rng, 30, 5), 5, 1)


@suite.hidden(
    "most bins empty",
    edge="an empty bin",
    note="0 / 0 is NaN: an empty bin has the gap 0 and adds nothing.",
)
def mostly_empty(rng: Rng):
    return case(rng, rng.uniform(0.91, 0.95, (9,)), 3, 15)


@suite.hidden(
    "the last bins empty",
    edge="an empty bin",
    note="There are B gaps, also where the last bins hold nothing.",
)
def last_empty(rng: Rng):
    return case(rng, rng.uniform(0.52, 0.68, (20,)), 2, 10)


@suite.hidden(
    "confidences at edges, and a little beside them",
    edge="a confidence at an edge",
    concept="bin edges",
    note="An edge belongs to the bin below it.",
)
def edges(rng: Rng):
    steps = rng.integers(9, 16, (24,)) / 16
    return case(rng, steps - 1e-3 * rng.bools((24,)) + 1e-3 * rng.bools((24,)), 4, 16)


@suite.hidden(
    "a classifier that is always certain",
    edge="a confidence of 1",
    concept="bin edges",
    note="A confidence of 1 belongs to the last bin. There is no bin after it.",
)
def certain(rng: Rng):
    return case(rng, torch.ones(12), 4, 10, accuracy=0.7)


@suite.hidden(
    "a confidence of 1 among others",
    edge="a confidence of 1",
    concept="bin edges",
    note="A confidence of 1 belongs to the last bin. There is no bin after it.",
)
def certain_among(rng: Rng):
    return case(rng, torch.cat([torch.ones(5), spread(rng, 20, 3)]), 3, 7)


@suite.hidden(
    "bins of very different sizes",
    note="Bins count by their number of samples, not all alike.",
)
def uneven(rng: Rng):
    parts = rng.uniform(0.9, 0.99, (200,)), rng.uniform(0.3, 0.5, (3,))
    return case(rng, torch.cat(parts), 5, 10, accuracy=0.9)


@suite.hidden(
    "always right",
    note="A classifier that is right more often than it says has gaps above 0, and an error too.",
)
def right(rng: Rng):
    return case(rng, spread(rng, 40, 4), 4, 10, accuracy=1.0)


@suite.hidden(
    "always wrong",
    note="The confidence is what the prediction got, also where the prediction is wrong.",
)
def wrong(rng: Rng):
    return case(rng, spread(rng, 40, 4), 4, 10, accuracy=0.0)


@suite.hidden(
    "right and wrong in one bin",
    note="Inside a bin excess and lack cancel. Take the absolute value of the mean, not before it.",
)
def cancelling(rng: Rng):
    return case(rng, rng.uniform(0.51, 0.59, (60,)), 6, 10, accuracy=0.55)


@suite.hidden("many narrow bins", note="B may be larger than N.")
def narrow(rng: Rng):
    return case(rng, spread(rng, 25, 8), 8, 100)


@suite.hidden("many samples")
def many(rng: Rng):
    return case(rng, spread(rng, 5000, 10), 10, 15, accuracy=0.8)


@suite.hidden(
    "float64", concept="dtypes", note="Keep the type.", tolerance=Tolerance(rtol=1e-9, atol=1e-12)
)
def double(rng: Rng):
    return case(rng, spread(rng, 50, 4), 4, 10, dtype=torch.float64)


@suite.hidden("a transposed view", concept="memory layout")
def transposed(rng: Rng):
    probabilities, labels, bins = case(rng, spread(rng, 30, 5), 5, 10)
    return probabilities.T.contiguous().T, torch.stack([labels, labels], 1)[:, 0], bins


@suite.hidden("no bins", raises=ValueError, note="Without bins there is nothing to sort into.")
def no_bins(rng: Rng):
    return (*case(rng, spread(rng, 4, 3), 3, 1)[:2], 0)


@suite.generated("any sizes", times=3)
def sizes(rng: Rng):
    classes = rng.integer(2, 20)
    return case(
        rng,
        spread(rng, rng.integer(20, 400), classes),
        classes,
        rng.integer(2, 30),
        rng.number(0, 1),
    )
