"""Tests of A fused SwiGLU, twice differentiable."""

import torch

from etude.practice.compare import Tolerance
from etude.practice.suite import Rng, Suite

# Arguments: gate, up, which of them want a gradient, the gradient that arrives, and the weights of
# the first gradients in the scalar that is differentiated again.
suite = Suite(tolerance=Tolerance(rtol=2e-4, atol=2e-6))
BOTH = [True, True]


def case(rng: Rng, gate: torch.Tensor, wanted=BOTH):
    def like() -> torch.Tensor:
        return rng.randn(*gate.shape, dtype=gate.dtype)

    return gate, like(), list(wanted), like(), [like() for want in wanted if want]


@suite.visible("four numbers")
def four(rng: Rng):
    return case(rng, rng.randn(4))


@suite.visible("a batch of rows")
def batch(rng: Rng):
    return case(rng, rng.randn(2, 3, scale=2.0))


@suite.hidden("no numbers", edge="no numbers", note="An empty tensor keeps its shape.")
def empty(rng: Rng):
    return case(rng, torch.empty(0, 3))


@suite.hidden("one number", edge="a scalar", note="The shape () stays as it is.")
def scalar(rng: Rng):
    return case(rng, rng.randn())


@suite.hidden(
    "a gate without a gradient",
    edge="one input without a gradient",
    note="backward returns one result for each input, needed or not.",
)
def gate_fixed(rng: Rng):
    return case(rng, rng.randn(5), [False, True])


@suite.hidden(
    "an up without a gradient",
    edge="one input without a gradient",
    note="The second derivative by the gate alone is not 0.",
)
def up_fixed(rng: Rng):
    return case(rng, rng.randn(5), [True, False])


@suite.hidden(
    "gates near 0",
    note="At 0 the SiLU is 0, but its derivative is 1/2.",
)
def small(rng: Rng):
    return case(rng, rng.randn(12, scale=1e-3))


@suite.hidden("gates that are 0", note="At 0 the SiLU is 0, but its derivative is 1/2.")
def zero(rng: Rng):
    return case(rng, torch.zeros(6))


@suite.hidden(
    "gates that are very negative",
    concept="numerical stability",
    note="exp(-a) is infinite in float32 for a below -89; 0 times infinity is NaN.",
)
def negative(rng: Rng):
    return case(rng, -rng.uniform(90, 10_000, (10,)))


@suite.hidden(
    "gates that are very large",
    concept="numerical stability",
    note="For large gates the function is gate · up, with second derivatives of 0 and 1.",
)
def large(rng: Rng):
    return case(rng, rng.uniform(90, 10_000, (10,)))


@suite.hidden(
    "gates where the curve bends",
    concept="double backward",
    note="What forward computes has no place in the graph: compute the sigmoid anew in backward.",
)
def bend(rng: Rng):
    return case(rng, rng.uniform(-4, 4, (60,)))


@suite.hidden(
    "gates at the lowest point",
    concept="double backward",
    note="Near -1.28 the first derivative is 0, and the second is not.",
)
def lowest(rng: Rng):
    return case(rng, rng.uniform(-1.4, -1.2, (8,)))


@suite.hidden(
    "float64",
    concept="dtypes",
    note="Keep the type.",
    tolerance=Tolerance(rtol=1e-10, atol=1e-12),
)
def double(rng: Rng):
    return case(rng, rng.randn(4, 6, dtype=torch.float64, scale=2.0))


@suite.hidden("transposed views", concept="memory layout")
def transposed(rng: Rng):
    gate, up, *rest = case(rng, rng.randn(5, 4))
    return gate.T.contiguous().T, up.T.contiguous().T, *rest


@suite.hidden("four dimensions")
def four_dimensions(rng: Rng):
    return case(rng, rng.randn(2, 3, 2, 4))


@suite.generated("any sizes", times=2)
def sizes(rng: Rng):
    return case(rng, rng.randn(rng.integer(2, 12), rng.integer(2, 12), scale=3.0))
