"""Tests of One step of AdamW."""

import torch

from etude.practice.compare import Tolerance
from etude.practice.suite import Rng, Suite

suite = Suite(tolerance=Tolerance(rtol=1e-4, atol=1e-7))
# Where parameters are 0 nothing cancels, and small numbers must be right too.
SMALL = Tolerance(rtol=1e-4, atol=1e-30)
BETAS = (0.9, 0.999)


def case(rng: Rng, *shape: int, step: int, dtype=torch.float32, lr=0.01, decay=0.1, betas=BETAS):
    """Return the arguments of one step; at step 1 both averages are 0."""
    parameter, gradient = rng.randn(*shape, dtype=dtype), rng.randn(*shape, dtype=dtype)
    mean = rng.randn(*shape, dtype=dtype, scale=0.3) * (step > 1)
    square = rng.uniform(0.1, 1.0, shape, dtype) * (step > 1)
    return parameter, gradient, mean, square, step, lr, betas, 1e-8, decay


@suite.visible("the first step", tolerance=Tolerance(rtol=1e-4, atol=1e-9))
def first(rng: Rng):
    return case(rng, 3, step=1)


@suite.visible("the fifth step, a large decay")
def fifth(rng: Rng):
    return case(rng, 2, 2, step=5, lr=0.5, decay=0.5)


@suite.hidden(
    "the first step of a matrix",
    edge="step = 1",
    concept="bias correction",
    note="At step 1 the correction makes m' the gradient itself, and v' its square.",
)
def first_matrix(rng: Rng):
    return case(rng, 4, 5, step=1, lr=0.1)


@suite.hidden(
    "the second step",
    concept="bias correction",
    note="The factors are 1 - beta to the power of the step, counted from 1.",
)
def second(rng: Rng):
    return case(rng, 6, step=2, lr=0.1)


@suite.hidden(
    "a late step", concept="bias correction", note="After many steps the correction has no effect."
)
def late(rng: Rng):
    return case(rng, 6, step=1_000_000, lr=0.1)


@suite.hidden(
    "a gradient of 0",
    edge="a gradient of 0",
    note="At step 1 the gradient's part is 0 / eps. The parameter still decays.",
)
def no_gradient(rng: Rng):
    parameter, gradient, *rest = case(rng, 5, step=1, lr=0.1)
    return parameter, torch.zeros_like(gradient), *rest


@suite.hidden(
    "a gradient of 0 after others",
    edge="a gradient of 0",
    note="The averages remember: a parameter moves on where its gradient is 0.",
)
def no_gradient_later(rng: Rng):
    parameter, gradient, *rest = case(rng, 5, step=7, lr=0.1)
    return parameter, torch.zeros_like(gradient), *rest


@suite.hidden("one number", edge="a scalar", note="The shape () stays as it is.")
def scalar(rng: Rng):
    return case(rng, step=3, lr=0.1)


@suite.hidden("no numbers", note="An empty tensor keeps its shape.")
def empty(rng: Rng):
    return case(rng, 0, 3, step=2)


@suite.hidden(
    "a large rate and a large decay",
    concept="decoupled decay",
    note="The decay takes a share lr · decay of the old parameter, not of the moved one.",
)
def strong(rng: Rng):
    return case(rng, 8, step=4, lr=0.8, decay=0.9)


@suite.hidden(
    "gradients of very different sizes",
    concept="decoupled decay",
    note="Decay that goes through the averages is divided by them, and vanishes for large ones.",
)
def uneven(rng: Rng):
    parameter, gradient, mean, square, *rest = case(rng, 6, step=1, lr=0.1)
    sizes = torch.tensor([1e-3, 1.0, 1e3, 1e6, 1e10, 1e15])
    return parameter, gradient.sign() * sizes, mean, square, *rest


@suite.hidden(
    "gradients as small as eps",
    concept="eps",
    tolerance=SMALL,
    note="eps is added to the root of the corrected average, not under the root or before.",
)
def tiny(rng: Rng):
    parameter, gradient, mean, square, step, lr, betas, _, decay = case(rng, 6, step=1)
    gradient = gradient.sign() * torch.tensor([1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-12])
    return torch.zeros_like(parameter), gradient, mean, square, step, lr, betas, 1e-8, decay


@suite.hidden(
    "a large eps",
    concept="eps",
    tolerance=SMALL,
    note="eps is added to the root of the corrected average, not under the root or before.",
)
def large_eps(rng: Rng):
    parameter, gradient, mean, square, step, lr, betas, _, decay = case(rng, 6, step=3)
    return torch.zeros_like(parameter), gradient, mean, square, step, lr, betas, 0.1, decay


@suite.hidden("no decay", note="Without decay this is Adam.")
def no_decay(rng: Rng):
    return case(rng, 5, step=3, decay=0.0)


@suite.hidden(
    "other betas", note="Language models often use 0.95 for the second; take what is given."
)
def other_betas(rng: Rng):
    return case(rng, 5, step=3, lr=0.1, betas=(0.8, 0.95))


@suite.hidden("betas of 0", note="With betas of 0 nothing is remembered.")
def no_memory(rng: Rng):
    return case(rng, 5, step=2, lr=0.1, betas=(0.0, 0.0))


@suite.hidden(
    "float64", concept="dtypes", note="Keep the type.", tolerance=Tolerance(rtol=1e-11, atol=1e-13)
)
def double(rng: Rng):
    return case(rng, 3, 4, step=11, dtype=torch.float64, lr=0.1)


@suite.hidden("transposed views", concept="memory layout")
def transposed(rng: Rng):
    made = case(rng, 5, 3, step=4)
    return *(tensor.T for tensor in made[:4]), *made[4:]


@suite.generated("any step", times=3)
def any_step(rng: Rng):
    return case(
        rng,
        rng.integer(1, 9),
        rng.integer(1, 9),
        step=rng.integer(2, 40),
        lr=rng.number(0.01, 0.5),
        decay=rng.number(0.0, 0.5),
        betas=(rng.number(0.5, 0.95), rng.number(0.9, 0.999)),
    )
