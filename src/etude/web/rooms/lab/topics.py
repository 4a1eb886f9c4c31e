"""Topics of the Lab: the list of runs, and the metrics of one run."""

from __future__ import annotations

from collections.abc import Sequence

from etude.app.run_news import MetricsTail, runs_signature
from etude.app.workbench import Workbench
from etude.web.events import Step


class RunsTopic:
    """The list of runs: a step says only that it has changed."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench

    def position(self) -> str:
        """Return a text that changes with the list, or with the state of a run in it."""
        return runs_signature(self._bench.runs)

    def after(self, position: str) -> Sequence[Step]:
        """Return one step if anything has changed."""
        now = self.position()
        return [] if now == position else [Step(now, None)]


class MetricsTopic:
    """The metrics of a run: a step holds records, and whether they replace all earlier ones."""

    def __init__(self, tail: MetricsTail) -> None:
        self._tail = tail

    def position(self) -> str:
        """Return which file it is, and where its last whole line ends."""
        return self._tail.position()

    def after(self, position: str) -> Sequence[Step]:
        """Return the records after a position, in portions."""
        return [
            Step(portion.position, {"records": portion.records, "anew": portion.anew})
            for portion in self._tail.after(position)
        ]


def open_runs(bench: Workbench, which: str) -> RunsTopic:
    """Return the topic `runs`."""
    del which
    return RunsTopic(bench)


def open_metrics(bench: Workbench, which: str) -> MetricsTopic:
    """Return the topic `run/NAME`.

    Raises:
        RunError: there is no such run.
    """
    return MetricsTopic(MetricsTail.of_run(bench.runs, which))
