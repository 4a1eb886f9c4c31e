"""Tests of Find the leak."""

import torch

from etude.practice.compare import Tolerance
from etude.practice.suite import Rng, Suite

# Arguments: batches, the optimiser's name and its learning rate.
suite = Suite(tolerance=Tolerance(rtol=2e-4, atol=5e-6))


def batches(rng: Rng, *sizes: int, width: int = 3, out: int = 2, dtype=torch.float32):
    return [(rng.randn(n, width, dtype=dtype), rng.randn(n, out, dtype=dtype)) for n in sizes]


@suite.visible("four equal batches")
def four(rng: Rng):
    return batches(rng, 3, 3, 3, 3), "sgd", 0.1


@suite.visible("three batches of different sizes")
def unequal(rng: Rng):
    return batches(rng, 4, 1, 2), "sgd", 0.1


@suite.hidden("one batch", edge="one batch", note="Even one batch leaves a graph behind.")
def one(rng: Rng):
    return batches(rng, 5), "sgd", 0.1


@suite.hidden("one sample", edge="N = 1", note="The predictions have the shape (1, C).")
def sample(rng: Rng):
    return batches(rng, 1), "sgd", 0.1


@suite.hidden(
    "ten batches",
    note="Memory must not grow with the number of batches: detach in each step, not at the end.",
)
def ten(rng: Rng):
    return batches(rng, *[2] * 10), "sgd", 0.05


@suite.hidden("two batches", note="Between two batches one graph may wait, afterwards none.")
def two(rng: Rng):
    return batches(rng, 3, 5), "sgd", 0.2


@suite.hidden("one target", note="With C = 1 the predictions have the shape (N, 1).")
def single_target(rng: Rng):
    return batches(rng, 3, 2, 4, out=1), "sgd", 0.1


@suite.hidden("Adam", note="What the optimiser remembers has no graph either.")
def adam(rng: Rng):
    return batches(rng, 4, 4, 3), "adam", 0.01


@suite.hidden("a rate of 0", note="The losses are those before each step.")
def no_rate(rng: Rng):
    return batches(rng, 2, 3, 2), "sgd", 0.0


@suite.hidden("a last batch that is smaller", note="Weigh each batch by its number of samples.")
def smaller(rng: Rng):
    made = batches(rng, 8, 8, 8, 1)
    made[-1] = (made[-1][0], made[-1][1] + 10)
    return made, "sgd", 0.01


@suite.hidden(
    "float64",
    concept="dtypes",
    note="Predictions keep the model's type; losses are Python floats.",
    tolerance=Tolerance(rtol=1e-10, atol=1e-12),
)
def double(rng: Rng):
    return batches(rng, 3, 2, dtype=torch.float64), "sgd", 0.1


@suite.hidden("inputs that are transposed views", concept="memory layout")
def transposed(rng: Rng):
    return [(rng.randn(4, 5).T, rng.randn(2, 5).T) for _ in range(3)], "sgd", 0.1


@suite.hidden("large targets", note="Losses may be large numbers.")
def large(rng: Rng):
    return [(x, y * 1000) for x, y in batches(rng, 3, 4)], "sgd", 1e-6


@suite.generated("any batches", times=2)
def any_batches(rng: Rng):
    sizes = [rng.integer(1, 9) for _ in range(rng.integer(3, 9))]
    return batches(rng, *sizes, width=rng.integer(1, 6)), "sgd", 0.05
