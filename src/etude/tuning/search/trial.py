"""Trial: one recipe of a space, what became of it and what it measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

TrialState = Literal[
    "running", "paused", "finished", "dropped", "failed", "diverged", "skipped", "no_memory"
]

STATES: dict[TrialState, str] = {
    "running": "running",
    "paused": "paused",
    "finished": "finished",
    "dropped": "stopped at a rung",
    "failed": "failed",
    "diverged": "diverged",
    "skipped": "impossible",
    "no_memory": "too large",
}
"""Words for people."""

UNCOUNTED: tuple[TrialState, ...] = ("skipped", "no_memory")
"""States of trials that were not begun, and do not count as trials."""

OVER: tuple[TrialState, ...] = ("failed", "diverged", "skipped", "no_memory")
"""States of trials that ended without a value."""


@dataclass(frozen=True)
class Trial:
    """A trial as trials.json lists it."""

    number: int
    """From 0, the default recipe."""
    values: dict[str, Any]
    """Values of the keys that were searched, dotted."""
    state: TrialState
    bracket: int = 0
    """Trials of one bracket are halved together; the default recipe is alone in bracket 0."""
    rungs: dict[str, float] = field(default_factory=dict[str, float])
    """The metric by the percentage of the training after which it was measured."""
    objectives: list[float] = field(default_factory=list[float])
    """At the end of training: the metric, then each cost."""
    error: float | None = None
    """Standard error of the metric over the evaluation samples."""
    figures: dict[str, Any] = field(default_factory=dict[str, Any])
    """Of summary.json: the metrics, saved_bytes, peak_rss, train_seconds, ..."""
    seconds: float = 0.0
    """That processes worked on it, loading and measuring included."""
    run: str = ""
    """Name of its folder in `trials/`; empty before there is one."""
    reason: str = ""
    """Why it ended without a value."""

    @property
    def value(self) -> float | None:
        """The metric at the end of training."""
        return self.objectives[0] if self.objectives else None

    @property
    def share(self) -> float:
        """The share of its training that is done and measured."""
        if self.state == "finished":
            return 1.0
        return max((int(percent) for percent in self.rungs), default=0) / 100

    @property
    def last_value(self) -> float | None:
        """The metric as last measured."""
        if self.value is not None or not self.rungs:
            return self.value
        return self.rungs[max(self.rungs, key=int)]

    def as_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Trial:
        """Read what `as_json` returned."""
        return cls(**record)


def percent(share: float) -> int:
    """Return a share of the training as the journal counts it: 33 for a third."""
    return round(100 * share)
