"""Topics of the Lab: the list of runs, and the metrics of one run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from etude.app.drafts import find_draft
from etude.app.run_news import MetricsTail, run_named, runs_signature
from etude.app.workbench import Workbench
from etude.tuning.runs.folder import RunFolder
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


class DraftTopic:
    """What is known of a draft: a step says only that there is more."""

    def __init__(self, name: str) -> None:
        self._draft = find_draft(name)

    def position(self) -> str:
        """Return a text that changes when a part has been looked at."""
        return self._draft.signature()

    def after(self, position: str) -> Sequence[Step]:
        """Return one step if anything has changed."""
        now = self.position()
        return [] if now == position else [Step(now, None)]


def open_draft(bench: Workbench, which: str) -> DraftTopic:
    """Return the topic `draft/ID`.

    Raises:
        DataError: there is no such draft.
    """
    del bench
    return DraftTopic(which)


class LogTopic:
    """The log of a run: a step says only that it has grown."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def position(self) -> str:
        """Return its size."""
        return str(self._file.stat().st_size if self._file.exists() else 0)

    def after(self, position: str) -> Sequence[Step]:
        """Return one step if anything was written."""
        now = self.position()
        return [] if now == position else [Step(now, None)]


def open_log(bench: Workbench, which: str) -> LogTopic:
    """Return the topic `log/NAME`.

    Raises:
        RunError: there is no such run.
    """
    return LogTopic(RunFolder(run_named(bench.runs, which)).log)
