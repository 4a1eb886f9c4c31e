"""Tests of A training loop."""

import torch

from etude.practice.compare import Tolerance
from etude.practice.suite import Rng, Suite

# Arguments: kind of model, outputs, loss, inputs, targets, rate, steps, gradients left over?
suite = Suite(tolerance=Tolerance(rtol=2e-4, atol=2e-5))


def regression(rng: Rng, kind: str, steps: int, count: int = 8, stale: bool = False, rate=0.1):
    return kind, 2, "mse", rng.randn(count, 3), rng.randn(count, 2), rate, steps, stale


def classes(rng: Rng, kind: str, steps: int, count: int = 9, stale: bool = False):
    targets = rng.integers(0, 4, (count,))
    return kind, 4, "cross entropy", rng.randn(count, 3), targets, 0.2, steps, stale


@suite.visible("three steps of a linear regression")
def three(rng: Rng):
    return regression(rng, "linear", 3)


@suite.visible("five steps of a classifier")
def classifier(rng: Rng):
    return classes(rng, "deep", 5)


@suite.hidden(
    "no steps",
    edge="no steps",
    note="Nothing is trained, yet the model ends in evaluation mode.",
)
def none(rng: Rng):
    return regression(rng, "linear", 0)


@suite.hidden("one step", edge="one step", note="One step gives one loss: the one before it.")
def one(rng: Rng):
    return regression(rng, "deep", 1)


@suite.hidden("one sample", edge="N = 1", note="A batch of one is a batch.")
def sample(rng: Rng):
    return classes(rng, "linear", 4, count=1)


@suite.hidden(
    "gradients left over from earlier work",
    concept="zero_grad",
    note="backward adds to what is there. Clear the gradients before it, in the first step too.",
)
def left_over(rng: Rng):
    return regression(rng, "deep", 2, stale=True)


@suite.hidden(
    "gradients left over and one step",
    concept="zero_grad",
    note="backward adds to what is there. Clear the gradients before it, in the first step too.",
)
def left_over_once(rng: Rng):
    return classes(rng, "linear", 1, stale=True)


@suite.hidden("many steps", note="Errors that are small in one step add up over thirty.")
def many(rng: Rng):
    return regression(rng, "deep", 30, rate=0.05)


@suite.hidden(
    "a model with batch norm",
    concept="modes",
    note="In training mode batch norm uses the batch's own statistics, and notes them.",
)
def batch_norm(rng: Rng):
    return classes(rng, "batch norm", 4, count=16)


@suite.hidden(
    "a model with a frozen layer",
    concept="frozen parameters",
    note="Frozen parameters do not move.",
)
def frozen(rng: Rng):
    return regression(rng, "partly frozen", 5)


@suite.hidden(
    "a layer that the model does not use",
    note="The gradient of an unused parameter is None, and the parameter stays.",
)
def unused(rng: Rng):
    return regression(rng, "unused", 3)


@suite.hidden("a rate of 0", note="The loss stays the same, and so do the parameters.")
def no_rate(rng: Rng):
    return regression(rng, "linear", 3, rate=0.0)


@suite.hidden(
    "float64",
    concept="dtypes",
    note="Losses are Python floats; the model keeps its type.",
    tolerance=Tolerance(rtol=1e-9, atol=1e-11),
)
def double(rng: Rng):
    inputs = rng.randn(6, 3, dtype=torch.float64)
    return "deep", 2, "mse", inputs, rng.randn(6, 2, dtype=torch.float64), 0.1, 4, False


@suite.hidden("inputs that are a transposed view", concept="memory layout")
def transposed(rng: Rng):
    return "linear", 1, "mse", rng.randn(4, 7).T, rng.randn(7, 1), 0.1, 3, True


@suite.generated("any model", times=2)
def any_model(rng: Rng):
    kind = rng.choice(["linear", "deep", "partly frozen"])
    return classes(rng, kind, rng.integer(2, 8), rng.integer(2, 20), True)
