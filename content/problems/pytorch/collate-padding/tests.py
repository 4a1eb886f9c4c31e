"""Tests of Collate sequences with padding."""

import torch

from etude.practice.suite import Rng, Suite

suite = Suite()


def rows(rng: Rng, *lengths: int, low: int = 1, dtype: torch.dtype = torch.int64):
    return [rng.integers(low, 100, (length,), dtype=dtype) for length in lengths]


@suite.visible("three and one tokens, width a multiple of two")
def shown(rng: Rng):
    return rows(rng, 3, 1), 0, 2


@suite.visible("no multiple asked for")
def plain(rng: Rng):
    return rows(rng, 2, 5, 3), 0


@suite.hidden("one sample", edge="one sample", note="A batch of one has the shape (1, W).")
def single(rng: Rng):
    return rows(rng, 4), 7, 1


@suite.hidden(
    "an empty sample among others",
    edge="an empty sample",
    note="A sample without tokens is a row of padding.",
)
def empty(rng: Rng):
    return rows(rng, 3, 0, 2), 9, 1


@suite.hidden(
    "only empty samples",
    edge="only empty samples",
    note="0 is a multiple of every number: the width is 0.",
)
def all_empty(rng: Rng):
    return rows(rng, 0, 0), 1, 8


@suite.hidden("no samples", raises=ValueError, note="There is nothing to take a width from.")
def nothing(rng: Rng):
    return [], 0, 1


@suite.hidden(
    "the padding id occurs as a real token",
    concept="masks",
    note="The mask comes from the lengths. A token that equals `pad` is real all the same.",
)
def pad_is_real(rng: Rng):
    samples = rows(rng, 4, 6, 2)
    samples[0][-1] = samples[1][0] = samples[1][5] = samples[2][1] = 50
    return samples, 50, 1


@suite.hidden(
    "a width that is a multiple already", note="Nothing is added where the longest row fits."
)
def fits(rng: Rng):
    return rows(rng, 8, 5), 0, 4


@suite.hidden(
    "a multiple larger than all samples", note="The smallest positive multiple is m itself."
)
def large_multiple(rng: Rng):
    return rows(rng, 2, 3), 3, 16


@suite.hidden("an odd multiple", note="m need not be a power of two.")
def odd(rng: Rng):
    return rows(rng, 7, 4, 8), 2, 5


@suite.hidden("equal lengths", note="Where nothing is padded the mask is all ones.")
def equal(rng: Rng):
    return rows(rng, 5, 5, 5), 0, 1


@suite.hidden(
    "int32 samples", concept="dtypes", note="All three results are int64, whatever came in."
)
def narrow(rng: Rng):
    return rows(rng, 3, 5, dtype=torch.int32), 0, 1


@suite.hidden(
    "samples of two types", concept="dtypes", note="All three results are int64, whatever came in."
)
def mixed(rng: Rng):
    return [*rows(rng, 3, dtype=torch.int16), *rows(rng, 4)], 0, 1


@suite.hidden("samples that are columns of a table", concept="memory layout")
def columns(rng: Rng):
    return list(rng.integers(0, 100, (6, 3)).T), 0, 4


@suite.hidden("a negative padding id", note="Any whole number may be the padding id.")
def negative(rng: Rng):
    return rows(rng, 1, 4), -1, 3


@suite.generated("any lengths", times=3)
def lengths(rng: Rng):
    count = rng.integer(2, 12)
    samples = rows(rng, *(rng.integer(0, 40) for _ in range(count)), low=0)
    return samples, rng.integer(0, 5), rng.choice([1, 3, 8, 64])
