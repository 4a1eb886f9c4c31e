"""Tests of Record activations with hooks."""

import torch

from etude.practice.compare import Tolerance
from etude.practice.suite import Rng, Suite

suite = Suite(tolerance=Tolerance(rtol=1e-4, atol=1e-6))


@suite.visible("three layers in a row")
def mlp(rng: Rng):
    return "mlp", rng.randn(2, 4), True


@suite.visible("two blocks and a head")
def nested(rng: Rng):
    return "nested", rng.randn(3, 4), True


@suite.hidden(
    "a model that is one layer",
    edge="the model is one leaf",
    note="A model without modules inside is a leaf, and its name is the empty string.",
)
def leaf(rng: Rng):
    return "leaf", rng.randn(6, 3), True


@suite.hidden("no samples", edge="N = 0", note="An empty output has a shape, and the mean NaN.")
def none(rng: Rng):
    return "mlp", torch.empty(0, 4), True


@suite.hidden(
    "layers that are called three times",
    edge="a module called twice",
    note="Each call makes an entry, so a dict of names is not enough.",
)
def shared(rng: Rng):
    return "shared", rng.randn(4, 5), True


@suite.hidden(
    "registered in another order than run",
    note="The order of the calls counts. A layer that is never called makes no entry.",
)
def disordered(rng: Rng):
    return "disordered", rng.randn(4, 6), False


@suite.hidden(
    "a model that fails in the middle",
    concept="cleaning up",
    note="Hooks must be removed when the model raises an error, too: think of try and finally.",
)
def failing(rng: Rng):
    return "failing", rng.randn(2, 3), True


@suite.hidden(
    "dropout in training mode",
    concept="modes",
    note="Run the model once, in the mode it is in.",
)
def dropout(rng: Rng):
    return "dropout", rng.randn(5, 4), True


@suite.hidden("dropout in evaluation mode", concept="modes", note="Keep the mode as it is.")
def evaluation(rng: Rng):
    return "dropout", rng.randn(5, 4), False


@suite.hidden("inputs of three dimensions", note="The shape is the whole shape of the output.")
def deep(rng: Rng):
    return "nested", rng.randn(2, 5, 6), False


@suite.hidden("one sample", note="One sample keeps its dimension.")
def one(rng: Rng):
    return "mlp", rng.randn(1, 7), True


@suite.hidden(
    "float64", concept="dtypes", note="The mean is a Python float, whatever the model's type."
)
def double(rng: Rng):
    return "mlp", rng.randn(3, 4, dtype=torch.float64), True


@suite.hidden("inputs far from zero", note="The mean is taken over all elements of the output.")
def far(rng: Rng):
    return "shared", rng.randn(3, 4) * 100 - 500, True


@suite.generated("any width", times=2)
def any_width(rng: Rng):
    kind = rng.choice(["mlp", "nested", "shared"])
    return kind, rng.randn(rng.integer(2, 9), rng.integer(2, 9)), True
