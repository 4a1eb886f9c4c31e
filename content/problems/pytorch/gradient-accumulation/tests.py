"""Tests of Gradient accumulation by tokens."""

import torch

from etude.practice.compare import Tolerance
from etude.practice.suite import Rng, Suite

# Arguments: size of the vocabulary, micro-batches, what the gradients hold before (or None).
suite = Suite(tolerance=Tolerance(rtol=2e-4, atol=2e-6))
VOCABULARY = 7


def batch(rng: Rng, rows: int, width: int, count: int):
    """Return a micro-batch of which `count` places count."""
    labels = torch.full((rows * width,), -100)
    places = rng.permutation(rows * width)[:count]
    labels[places] = rng.integers(0, VOCABULARY, (count,))
    return rng.integers(0, VOCABULARY, (rows, width)), labels.reshape(rows, width)


@suite.visible("five labels and one")
def unequal(rng: Rng):
    return VOCABULARY, [batch(rng, 2, 3, 5), batch(rng, 2, 3, 1)], None


@suite.visible("three micro-batches of different shapes")
def shapes(rng: Rng):
    return VOCABULARY, [batch(rng, 1, 6, 2), batch(rng, 3, 4, 9), batch(rng, 2, 2, 4)], None


@suite.hidden(
    "one micro-batch",
    edge="one micro-batch",
    note="One micro-batch is the whole batch: its plain mean is right.",
)
def one(rng: Rng):
    return VOCABULARY, [batch(rng, 3, 5, 8)], None


@suite.hidden(
    "a micro-batch without labels among others",
    edge="a micro-batch without labels",
    note="The mean of no labels is NaN, and one NaN spoils all gradients. Work with sums.",
)
def unlabelled(rng: Rng):
    return VOCABULARY, [batch(rng, 2, 3, 4), batch(rng, 2, 4, 0), batch(rng, 1, 5, 2)], None


@suite.hidden(
    "no labels at all",
    edge="no labels at all",
    note="Nothing counts: the loss is 0.0, and no gradient is left.",
)
def nothing_counts(rng: Rng):
    return VOCABULARY, [batch(rng, 2, 3, 0), batch(rng, 1, 4, 0)], torch.tensor(2.0)


@suite.hidden(
    "no micro-batches",
    edge="no micro-batches",
    note="Without micro-batches the loss is 0.0, and gradients of earlier steps are gone.",
)
def none(rng: Rng):
    return VOCABULARY, [], torch.tensor(1.5)


@suite.hidden(
    "gradients of earlier steps",
    concept="zero_grad",
    note="Clear the gradients once, before the first micro-batch.",
)
def stale(rng: Rng):
    return VOCABULARY, [batch(rng, 2, 4, 6), batch(rng, 2, 4, 3)], torch.tensor(4.0)


@suite.hidden(
    "equal micro-batches", note="With equal numbers of labels all ways of weighting agree."
)
def equal(rng: Rng):
    return VOCABULARY, [batch(rng, 2, 3, 6) for _ in range(4)], None


@suite.hidden("one label against many", note="Each label has the same weight, wherever it stands.")
def lonely(rng: Rng):
    return VOCABULARY, [batch(rng, 1, 4, 1), batch(rng, 4, 10, 40)], None


@suite.hidden(
    "rows that are unequal within a micro-batch",
    note="The mean is over labels, not over rows.",
)
def rows(rng: Rng):
    inputs = rng.integers(0, VOCABULARY, (2, 6))
    labels = rng.integers(0, VOCABULARY, (2, 6))
    labels[1, 1:] = -100
    return VOCABULARY, [(inputs, labels), batch(rng, 1, 6, 3)], None


@suite.hidden(
    "float64",
    concept="dtypes",
    note="Gradients keep the model's type.",
    tolerance=Tolerance(rtol=1e-9, atol=1e-12),
)
def double(rng: Rng):
    stale = torch.tensor(1.0, dtype=torch.float64)
    return VOCABULARY, [batch(rng, 2, 3, 5), batch(rng, 3, 3, 2)], stale


@suite.hidden("eight micro-batches", note="Only one graph at a time may wait for backward.")
def eight(rng: Rng):
    return VOCABULARY, [batch(rng, 1, 5, 1 + index % 5) for index in range(8)], None


@suite.hidden("inputs and labels that are transposed views", concept="memory layout")
def transposed(rng: Rng):
    made = [batch(rng, 4, 2, 5), batch(rng, 3, 5, 4)]
    return VOCABULARY, [(inputs.T, labels.T) for inputs, labels in made], None


@suite.generated("any micro-batches", times=2)
def any_batches(rng: Rng):
    made = []
    for _ in range(rng.integer(2, 6)):
        height, width = rng.integer(1, 4), rng.integer(1, 7)
        made.append(batch(rng, height, width, rng.integer(1, height * width + 1)))
    return VOCABULARY, made, torch.tensor(-1.0)
