"""Rungs: places in a run where it is measured, and may pause, to be compared with other runs."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Rungs:
    """Shares of a run's steps. The schedule is that of all its steps, wherever the run pauses."""

    shares: tuple[float, ...]
    """After each of these the held-out samples are evaluated; the end is no rung."""
    until: float = 1.0
    """Where the run pauses; 1: it goes on to its end."""

    def is_rung(self, step: int, total: int) -> bool:
        """Whether an evaluation is due after `step` of `total` steps."""
        return step < total and any(step == rung_step(share, total) for share in self.shares)

    def pauses(self, step: int, total: int) -> bool:
        """Whether the run pauses after `step`; a plan that a time limit shortened may be past."""
        return step < total and step >= rung_step(self.until, total)


def rung_step(share: float, total: int) -> int:
    """Return the step, from 1, after which a share of `total` steps is done."""
    return max(1, min(total, math.ceil(share * total - 1e-9)))
