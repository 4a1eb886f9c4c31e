"""Tests of Top-p filtering."""

import math

import torch

from etude.practice.compare import Tolerance
from etude.practice.suite import Rng, Suite

# No absolute tolerance: a small probability that is kept is not the same as none.
suite = Suite(tolerance=Tolerance(rtol=1e-4, atol=1e-30))


def clear(rng: Rng, *shape: int, p: float, scale: float = 1.5) -> tuple[torch.Tensor, float]:
    """Return logits whose sums of sorted probabilities all keep away from `p`."""
    rows = torch.empty(math.prod(shape[:-1]), shape[-1])
    for row in rows:
        while True:
            row[:] = rng.randn(shape[-1], scale=scale)
            sums = row.double().softmax(-1).sort(descending=True).values.cumsum(-1)
            if (sums - p).abs().min() > 2e-4:
                break
    return rows.reshape(shape), p


@suite.visible("five tokens")
def five(rng: Rng):
    return clear(rng, 5, p=0.8)


@suite.visible("p above 1", raises=ValueError)
def too_large_shown(rng: Rng):
    return rng.randn(4), 1.5


@suite.hidden("one token", edge="V = 1", note="One token has the probability 1.")
def one(rng: Rng):
    return rng.randn(3, 1), 0.5


@suite.hidden(
    "p = 1", edge="p = 1", note="With p = 1 even a token of probability 1e-9 keeps what it has."
)
def everything(rng: Rng):
    logits = rng.randn(4, 40)
    logits[:, ::2] -= 20
    return logits, 1.0


@suite.hidden(
    "a tiny p", concept="nucleus", note="The most probable token is kept, however small p is."
)
def tiny(rng: Rng):
    return rng.randn(3, 20), 1e-6


@suite.hidden(
    "several rows",
    concept="batches",
    note="Each row is sorted, cut and normalised on its own.",
)
def rows(rng: Rng):
    return clear(rng, 6, 12, p=0.7)


@suite.hidden(
    "one row among few tokens",
    note="The token that takes the sum to p or above is kept too.",
)
def few(rng: Rng):
    return clear(rng, 8, 3, p=0.6)


@suite.hidden(
    "equal probabilities, a sum that is exactly p",
    concept="ties",
    note="Where the sum is exactly p it is enough; of equal tokens the first ones are kept.",
)
def exact(rng: Rng):
    return torch.full((2, 8), float(rng.integer(-3, 4))), rng.integer(1, 8) / 8


@suite.hidden(
    "equal probabilities, a sum beyond p",
    concept="ties",
    note="Equal tokens are not all kept or all dropped: count in the order of their indices.",
)
def ties(rng: Rng):
    return torch.full((16,), rng.number(-3, 3)), (rng.integer(1, 15) + 0.5) / 16


@suite.hidden(
    "ties at the border",
    concept="ties",
    note="A threshold on the probability keeps too many where several tokens are equal.",
)
def border(rng: Rng):
    # One token has 1/2, eight have 1/16 each: 1/2 + 3/16 reaches 0.65.
    logits = torch.tensor([0.5] + [1 / 16] * 8).log()
    return logits[rng.permutation(9)], 0.65


@suite.hidden(
    "tokens that are ruled out",
    note="A logit of minus infinity is a probability of 0, and no NaN may come of it.",
)
def ruled_out(rng: Rng):
    logits, p = clear(rng, 3, 10, p=0.9)
    return torch.cat([logits, torch.full((3, 4), -math.inf)], 1)[:, rng.permutation(14)], p


@suite.hidden(
    "large logits",
    concept="stable softmax",
    note="exp of a large logit is infinite; take the largest one off first.",
)
def large(rng: Rng):
    logits, p = clear(rng, 3, 10, p=0.8)
    return (logits.double() + 2.0**14).float(), p


@suite.hidden(
    "float64",
    concept="dtypes",
    tolerance=Tolerance(rtol=1e-10, atol=1e-30),
    note="The result has the type of the logits, and its precision.",
)
def double(rng: Rng):
    logits, p = clear(rng, 2, 30, p=0.85)
    return logits.double() + rng.randn(2, 30, dtype=torch.float64, scale=1e-7), p


@suite.hidden("a transposed view", concept="memory layout")
def strided(rng: Rng):
    logits, p = clear(rng, 5, 9, p=0.75)
    return logits.T.contiguous().T, p


@suite.hidden("p = 0", raises=ValueError, note="With p = 0 there would be nothing to draw from.")
def zero(rng: Rng):
    return rng.randn(4), 0.0


@suite.hidden("a negative p", raises=ValueError, note="p is a probability.")
def negative(rng: Rng):
    return rng.randn(2, 4), -0.5


@suite.generated("any size", times=3)
def sizes(rng: Rng):
    p = rng.number(0.3, 0.95)
    return clear(rng, rng.integer(1, 5), rng.integer(2, 200), p=p, scale=2.5)
