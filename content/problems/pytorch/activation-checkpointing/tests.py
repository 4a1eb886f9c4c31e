"""Tests of Recompute instead of remember."""

import torch

from etude.practice.compare import Tolerance
from etude.practice.suite import Rng, Suite

# Arguments: what to recompute, inputs, which of them want a gradient, two matrices, and the
# weights of the result in the scalar on which backward is called.
suite = Suite(tolerance=Tolerance(rtol=2e-4, atol=2e-6))


def case(rng: Rng, kind: str, rows: int = 3, width: int = 4, dtype=torch.float32):
    inputs = [rng.randn(rows, width, dtype=dtype)]
    weights = [rng.randn(width, width, dtype=dtype, scale=0.5) for _ in range(2)]
    return kind, inputs, [True], weights, rng.randn(rows, width, dtype=dtype)


@suite.visible("two layers")
def two_layers(rng: Rng):
    return case(rng, "plain")


@suite.visible("two inputs")
def two_inputs(rng: Rng):
    kind, inputs, _, weights, out = case(rng, "plain")
    return kind, [*inputs, rng.randn(3, 4)], [True, True], weights, out


@suite.hidden("one row", edge="one row", note="One row is a batch like any other.")
def one_row(rng: Rng):
    return case(rng, "plain", rows=1)


@suite.hidden(
    "a second input without a gradient",
    edge="an input without a gradient",
    note="An input that requires no gradient gets None.",
)
def constant(rng: Rng):
    kind, inputs, _, weights, out = case(rng, "plain", rows=5)
    return kind, [*inputs, rng.randn(5, 4)], [True, False], weights, out


@suite.hidden(
    "a first input without a gradient",
    edge="an input without a gradient",
    note="Any of the inputs may be the one that requires a gradient.",
)
def constant_first(rng: Rng):
    kind, inputs, _, weights, out = case(rng, "plain", rows=2)
    return kind, [*inputs, rng.randn(2, 4), rng.randn(2, 4)], [False, True, True], weights, out


@suite.hidden(
    "an integer input",
    edge="an input without a gradient",
    note="Integer tensors cannot require a gradient.",
)
def integers(rng: Rng):
    _, inputs, _, weights, _ = case(rng, "lookup", rows=6)
    index = rng.integers(0, 6, (8,))
    return "lookup", [*inputs, index], [True, False], weights, rng.randn(8, 4)


@suite.hidden(
    "dropout inside",
    concept="random state",
    note="Note the state of the random numbers before the first call, and set it for the second.",
)
def dropout(rng: Rng):
    return case(rng, "dropout", rows=6, width=8)


@suite.hidden(
    "dropout with a single row",
    concept="random state",
    note="After backward the random numbers go on as if there had been no second call.",
)
def dropout_once(rng: Rng):
    return case(rng, "dropout", rows=1, width=40)


@suite.hidden(
    "two recomputed parts in a row",
    note="Each part is called twice. The second pass through a part must end at its inputs.",
)
def chain(rng: Rng):
    return case(rng, "chain", rows=4, width=6)


@suite.hidden(
    "a recomputed part inside of another",
    note="The inner part runs once forward, and again whenever the outer part needs it.",
)
def nested(rng: Rng):
    return case(rng, "nested", rows=4)


@suite.hidden(
    "float64",
    concept="dtypes",
    note="Gradients have the type of what they belong to.",
    tolerance=Tolerance(rtol=1e-10, atol=1e-12),
)
def double(rng: Rng):
    return case(rng, "plain", rows=5, dtype=torch.float64)


@suite.hidden("an input that is a transposed view", concept="memory layout")
def transposed(rng: Rng):
    kind, _, wanted, weights, out = case(rng, "plain", rows=7)
    return kind, [rng.randn(4, 7).T], wanted, weights, out


@suite.hidden(
    "large inputs", note="Gradients may be 0 or very small. None is another thing than 0."
)
def large(rng: Rng):
    kind, inputs, wanted, weights, out = case(rng, "plain", rows=4)
    return kind, [inputs[0] * 100], wanted, weights, out


@suite.generated("any sizes", times=2)
def sizes(rng: Rng):
    kind = rng.choice(["plain", "dropout", "chain"])
    return case(rng, kind, rng.integer(2, 10), rng.integer(2, 10))
