"""Topics of the Lab: runs, their metrics, logs, conversations and exports; drafts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from etude.app.conversing import conversable
from etude.app.drafts import find_draft
from etude.app.run_exports import EXPORTS
from etude.app.run_news import MetricsTail, run_named, runs_signature
from etude.app.search import trials_stamp
from etude.app.work import work_of_run
from etude.app.workbench import Workbench
from etude.tuning.runs.folder import RunFolder
from etude.web.events import Step


class ChangedTopic:
    """Something whose state is a short text: a step says only that it has changed."""

    def __init__(self, position: Callable[[], str]) -> None:
        self._position = position

    def position(self) -> str:
        """Return the text."""
        return self._position()

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


def open_runs(bench: Workbench, which: str) -> ChangedTopic:
    """Return the topic `runs`: the list, and the state of each run in it."""
    del which
    return ChangedTopic(lambda: runs_signature(bench.runs))


def open_metrics(bench: Workbench, which: str) -> MetricsTopic:
    """Return the topic `run/NAME`.

    Raises:
        RunError: there is no such run.
    """
    return MetricsTopic(MetricsTail.of_run(bench.runs, which))


def open_draft(bench: Workbench, which: str) -> ChangedTopic:
    """Return the topic `draft/ID`: what is known of a draft.

    Raises:
        DataError: there is no such draft.
    """
    del bench
    return ChangedTopic(find_draft(which).signature)


def open_log(bench: Workbench, which: str) -> ChangedTopic:
    """Return the topic `log/NAME`: the size of a run's log.

    Raises:
        RunError: there is no such run.
    """
    log = RunFolder(run_named(bench.runs, which)).log
    return ChangedTopic(lambda: str(log.stat().st_size if log.exists() else 0))


def open_chat(bench: Workbench, which: str) -> ChangedTopic:
    """Return the topic `chat/NAME.ID`: a conversation with a run, and the process that answers.

    Raises:
        EtudeError: there is no such run or conversation.
    """
    name, _, chat = which.rpartition(".")
    opened = conversable(RunFolder(run_named(bench.runs, name)))
    opened.kept.find(chat)
    return ChangedTopic(lambda: opened.position(chat))


def open_work(bench: Workbench, which: str) -> ChangedTopic:
    """Return the topic `work/NAME`: what is made of a run.

    Raises:
        RunError: there is no such run.
    """
    run = RunFolder(run_named(bench.runs, which))
    return ChangedTopic(lambda: work_of_run(run).stamp(run.path / EXPORTS))


def open_trials(bench: Workbench, which: str) -> ChangedTopic:
    """Return the topic `trials/NAME`: the trials of a search.

    Raises:
        RunError: there is no such search.
    """
    return ChangedTopic(partial(trials_stamp, RunFolder(run_named(bench.runs, which))))
