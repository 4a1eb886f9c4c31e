"""Tests of Folds for cross-validation."""

import torch

from etude.practice.suite import Rng, Suite

suite = Suite()


@suite.visible("six samples in three folds")
def six(rng: Rng):
    return rng.permutation(6), 3


@suite.visible("seven samples in three folds")
def seven(rng: Rng):
    return rng.permutation(7), 3


@suite.visible("more folds than samples", raises=ValueError)
def too_many_shown(rng: Rng):
    return rng.permutation(3), 4


@suite.hidden(
    "leave one out",
    edge="k = N",
    note="With as many folds as samples each fold tests one, in a tensor of shape (1,).",
)
def leave_one_out(rng: Rng):
    return rng.permutation(9), 9


@suite.hidden("two folds", edge="k = 2", note="Each half is trained on once and tested once.")
def two(rng: Rng):
    return rng.permutation(10), 2


@suite.hidden(
    "two samples", edge="k = 2", note="The smallest data that can be split at all: one and one."
)
def two_samples(rng: Rng):
    return rng.permutation(2), 2


@suite.hidden(
    "a remainder of one",
    edge="N not divisible by k",
    concept="fold sizes",
    note="One fold has one sample more, and it is the first.",
)
def remainder_one(rng: Rng):
    return rng.permutation(21), 5


@suite.hidden(
    "a large remainder",
    edge="N not divisible by k",
    concept="fold sizes",
    note="The remainder is spread over the first folds. It is not one fold of its own.",
)
def remainder_large(rng: Rng):
    return rng.permutation(19), 5


@suite.hidden(
    "far fewer samples than pieces of equal size would need",
    edge="N not divisible by k",
    concept="fold sizes",
    note="Pieces of ceil(N / K) samples may use up all samples before the last fold.",
)
def few(rng: Rng):
    return rng.permutation(11), 8


@suite.hidden("samples in their own order", note="An unshuffled order is an order like any other.")
def sorted_order(rng: Rng):
    return torch.arange(12), 4


@suite.hidden(
    "samples in reverse",
    note="Test indices are taken from `order`, and training indices keep its order.",
)
def backwards(rng: Rng):
    return torch.arange(13).flip(0), 4


@suite.hidden("a view with strides", concept="memory layout")
def strided(rng: Rng):
    return torch.stack([rng.permutation(14), rng.permutation(14)], 1)[:, 1], 3


@suite.hidden("one fold", raises=ValueError, note="With one fold nothing is left to train on.")
def one_fold(rng: Rng):
    return rng.permutation(5), 1


@suite.hidden("no folds", raises=ValueError, note="K must be at least 2.")
def no_folds(rng: Rng):
    return rng.permutation(5), 0


@suite.hidden("one sample", raises=ValueError, note="One sample cannot be split into two folds.")
def one_sample(rng: Rng):
    return torch.tensor([0]), 2


@suite.generated("any sizes", times=3)
def sizes(rng: Rng):
    count = rng.integer(20, 1000)
    return rng.permutation(count), rng.integer(2, 20)
