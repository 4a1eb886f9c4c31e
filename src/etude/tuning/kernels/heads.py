"""The heads of attention, as every implementation of it takes them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Heads:
    """What attention is over."""

    query: int
    """Heads of the queries."""
    key: int
    """Heads of keys and values; each serves query / key heads of the queries."""
    width: int
    """Of one head."""
    scale: float
    """Factor on the scores."""
    window: int | None = None
    """Positions that a query sees, itself included; None: all before it."""
    causal: bool = True
    """Whether a query sees no key after it; False: it sees its whole segment, without a window."""
