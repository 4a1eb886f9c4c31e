"""Tests of Views and copies."""

import torch

from etude.practice.compare import Tolerance
from etude.practice.suite import Rng, Suite

# Arguments: a tensor x, the operation that gives the result, and the one that gives the source.
suite = Suite(tolerance=Tolerance(rtol=0.0, atol=0.0))


@suite.visible("a transposed view")
def transposed(rng: Rng):
    return rng.randn(3, 4), "x.T", "x itself"


@suite.visible("a copy")
def copied(rng: Rng):
    return rng.randn(3, 4), "x.clone()", "x itself"


@suite.visible("the first row")
def first_row(rng: Rng):
    return rng.randn(3, 4), "x[:1]", "x itself"


@suite.hidden(
    "all rows but the first",
    note="A view may begin in the middle of the storage. Compare storages, not first elements.",
)
def rest(rng: Rng):
    return rng.randn(4, 3), "x[1:]", "x itself"


@suite.hidden(
    "two different parts of one storage",
    note="Neither is made from the other, and no element is common, yet the storage is the same.",
)
def parts(rng: Rng):
    return rng.randn(4, 3), "x[1:]", "x[:1]"


@suite.hidden("a view as the source", note="The source may itself be a view.")
def view_as_source(rng: Rng):
    return rng.randn(4, 3), "x itself", "x[1:]"


@suite.hidden("every second column", note="Slices with steps are views.")
def steps(rng: Rng):
    return rng.randn(3, 6), "x[:, ::2]", "x itself"


@suite.hidden("one column", note="A column of a matrix is a view that is not contiguous.")
def column(rng: Rng):
    return rng.randn(5, 3), "x[:, 1]", "x itself"


@suite.hidden("rows taken by a list", note="An index that is a list or a tensor makes a copy.")
def by_list(rng: Rng):
    return rng.randn(3, 4), "x[[0, 1]]", "x itself"


@suite.hidden("elements taken by a mask", note="A boolean index makes a copy.")
def by_mask(rng: Rng):
    return rng.randn(4, 5), "x[x > 0]", "x itself"


@suite.hidden("reshape of a contiguous tensor", note="reshape gives a view wherever it can.")
def reshaped(rng: Rng):
    return rng.randn(3, 4), "x.reshape(-1)", "x itself"


@suite.hidden("reshape of a transposed tensor", note="reshape copies where a view is impossible.")
def reshaped_copy(rng: Rng):
    return rng.randn(3, 4), "x.T.reshape(-1)", "x itself"


@suite.hidden("flatten", note="A contiguous view is a view all the same.")
def flattened(rng: Rng):
    return rng.randn(2, 3, 2), "x.flatten()", "x itself"


@suite.hidden(
    "a copy of a transposed tensor",
    concept="contiguous",
    note="clone keeps the order in memory: its copy need not be contiguous.",
)
def transposed_copy(rng: Rng):
    return rng.randn(3, 4), "x.T.clone()", "x itself"


@suite.hidden(
    "the transpose of a new tensor",
    concept="contiguous",
    note="Not shared, but not contiguous either: it is copied.",
)
def new_transposed(rng: Rng):
    return rng.randn(3, 4), "x.square().T", "x itself"


@suite.hidden("an expanded tensor", concept="contiguous", note="A stride of 0 reads one row again.")
def expanded(rng: Rng):
    return rng.randn(2, 3), "x.expand(2, *x.shape)", "x itself"


@suite.hidden("three dimensions in another order", concept="contiguous")
def permuted(rng: Rng):
    return rng.randn(2, 3, 4), "x.permute(2, 0, 1)", "x itself"


@suite.hidden("contiguous of what is contiguous", note="contiguous() copies only where it must.")
def contiguous(rng: Rng):
    return rng.randn(3, 4), "x.contiguous()", "x itself"


@suite.hidden("contiguous of a transposed tensor", note="Here contiguous() has copied already.")
def contiguous_copy(rng: Rng):
    return rng.randn(3, 4), "x.T.contiguous()", "x itself"


@suite.hidden("detach", note="detach cuts the graph, not the memory.")
def detached(rng: Rng):
    return rng.randn(3, 4), "x.detach()", "x itself"


@suite.hidden(
    "a conversion to the same type", concept="dtypes", note="to(dtype) copies only where it must."
)
def same_type(rng: Rng):
    return rng.randn(4), "x.to(x.dtype)", "x itself"


@suite.hidden("a conversion to another type", concept="dtypes", note="Keep the type of the result.")
def other_type(rng: Rng):
    return rng.integers(-9, 9, (2, 3), dtype=torch.int32), "x.double()", "x itself"


@suite.hidden("one element", edge="a scalar", note="x[0, 0] is a view of shape ().")
def scalar(rng: Rng):
    return rng.randn(2, 2), "x[0, 0]", "x itself"


@suite.hidden(
    "two empty tensors",
    edge="empty tensors",
    note="All storages without bytes have the address 0. They share nothing.",
)
def empty(rng: Rng):
    return torch.empty(0), "torch.empty(0)", "x itself"


@suite.hidden("equal numbers", note="Equal values do not mean shared memory.")
def equal(rng: Rng):
    return torch.zeros(3, 3), "x + 0", "x itself"


@suite.generated("any operation", times=3)
def any_operation(rng: Rng):
    operation = rng.choice(
        ["x.T", "x[1:]", "x.view(1, -1)", "x.unsqueeze(0)", "torch.cat([x, x])", "x[:, 1]"]
    )
    return rng.randn(rng.integer(2, 6), rng.integer(2, 6)), operation, "x itself"
