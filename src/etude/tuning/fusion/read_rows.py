"""Rows of an encoder's last layer that its head reads; the layer need not compute the others.

A head for whole sequences reads the first token of each. Of the last layer, keys and values are
then needed for every token, but queries, the output of attention and the MLP for the first ones
alone: ten of the layer's twelve products of width H × H.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from torch import Tensor, nn


@dataclass
class ReadRows:
    """A request to one layer."""

    rows: Tensor
    """(n,) the rows that are read, ascending."""
    computed: bool = False
    """Whether the layer has returned these rows alone."""


_requests: WeakKeyDictionary[nn.Module, ReadRows] = WeakKeyDictionary()


@contextmanager
def only_rows(layer: nn.Module | None, rows: Tensor) -> Generator[ReadRows]:
    """Context manager: ask `layer`, if there is one, to compute `rows` alone."""
    request = ReadRows(rows)
    if layer is not None:
        _requests[layer] = request
    try:
        yield request
    finally:
        if layer is not None:
            del _requests[layer]


def requested(layer: nn.Module) -> ReadRows | None:
    """Return the request to a layer, if there is one."""
    return _requests.get(layer)
