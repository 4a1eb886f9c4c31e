"""What both sides measure themselves with: one clock, one reading of memory, one record.

A side calls `begin` when its training loop starts and `step` at the end of each optimiser step;
`record` writes what came of it. Standard library only, since two environments import it.
"""

from __future__ import annotations

import json
import re
import resource
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any


class Ruler:
    """Times one training process.

    Args:
        launched: when the parent started this process, seconds since the epoch.
    """

    def __init__(self, launched: float) -> None:
        self.launched = launched
        self._began = self._processor_began = self._processor_ended = 0.0
        self._ends: list[float] = []
        self._spent: list[float] = []
        self._first_step_ended = 0.0

    def begin(self) -> None:
        """Training starts now."""
        self._processor_began = time.process_time()
        self._began = time.perf_counter()

    def step(self) -> None:
        """An optimiser step has ended now."""
        self._ends.append(time.perf_counter())
        self._processor_ended = time.process_time()
        self._spent.append(self._processor_ended)
        if len(self._ends) == 1:
            self._first_step_ended = time.time()

    def record(self, file: str, **figures: Any) -> None:
        """Write the record: times in seconds, sizes in bytes.

        Args:
            file: where.
            figures: what the side counted: tokens, trained_tokens, computed_tokens, losses.
        """
        edges = [self._began, *self._ends]
        content = {
            "seconds_to_first_step": self._first_step_ended - self.launched,
            "training_seconds": edges[-1] - edges[0],
            "processor_seconds": self._processor_ended - self._processor_began,
            "step_processor_seconds": [
                after - before for before, after in pairwise([self._processor_began, *self._spent])
            ],
            "step_seconds": [after - before for before, after in pairwise(edges)],
            "peak_rss": peak_rss(),
            **figures,
        }
        Path(file).write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def peak_rss() -> int:
    """Return the largest resident memory that this process had, in bytes."""
    try:
        status = Path("/proc/self/status").read_text("utf-8")
    except OSError:
        # No /proc: macOS counts bytes here, the BSDs kibibytes.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    # Not ru_maxrss, which on Linux survives exec and so begins with the parent's size.
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0
