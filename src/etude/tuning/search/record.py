"""trials.json: every trial of a search, and what follows from them; readers need no Optuna."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from etude.core.errors import RunError
from etude.tuning.metrics.metric import Metric
from etude.tuning.runs.folder import RunFolder
from etude.tuning.search.trial import UNCOUNTED, Trial

TRIALS = "trials.json"


@dataclass(frozen=True)
class Selection:
    """The trials that a search names."""

    default: int | None
    best: int | None
    cheapest: int | None
    """Within one standard error of the best."""
    front: tuple[int, ...] = ()
    """Trials that no other is better than in all objectives, where there are several."""


@dataclass(frozen=True)
class SearchRecord:
    """The content of trials.json."""

    metric: Metric
    """To improve."""
    against: Sequence[str]
    """Costs to lower at the same time."""
    trials: list[Trial]
    """In the order of their numbers."""
    selection: Selection
    rung_metric: Metric | None = None
    """What trials are compared by at rungs."""
    importance: Mapping[str, float] = field(default_factory=dict[str, float])
    """By dotted key, summing to 1; empty with too few trials."""
    seconds: float = 0.0
    """Since the search began, over all its processes."""

    @property
    def begun(self) -> int:
        """Trials that count."""
        return sum(trial.state not in UNCOUNTED for trial in self.trials)

    @property
    def trained(self) -> float:
        """Trainings in full that all trials amount to."""
        return sum(trial.share for trial in self.trials)

    def trial(self, number: int | None) -> Trial | None:
        """Return the trial of a number."""
        return next((trial for trial in self.trials if trial.number == number), None)

    def write(self, folder: RunFolder) -> None:
        """Replace trials.json. Raises: RunError, and the file stays as it was."""
        content = {
            **asdict(self),
            "metric": self.metric.as_json(),
            "rung_metric": self.rung_metric.as_json() if self.rung_metric else None,
            "trials": [trial.as_json() for trial in self.trials],
        }
        folder.write_json(TRIALS, content)

    @classmethod
    def read(cls, folder: RunFolder) -> SearchRecord | None:
        """Read trials.json; None before there is one.

        Raises:
            RunError: it is damaged.
        """
        content: Any = folder.read_json(TRIALS)
        if content is None:
            return None
        try:
            chosen = content["selection"]
            return cls(
                Metric.from_json(content["metric"]),
                tuple(content["against"]),
                [Trial.from_json(record) for record in content["trials"]],
                Selection(
                    chosen["default"], chosen["best"], chosen["cheapest"], tuple(chosen["front"])
                ),
                Metric.from_json(content["rung_metric"]) if content["rung_metric"] else None,
                content["importance"],
                content["seconds"],
            )
        except (TypeError, KeyError, ValueError) as error:
            raise RunError(f"{folder.path / TRIALS} is damaged: {error}") from None
