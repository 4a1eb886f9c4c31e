"""Topics of Practise: the standing of one submission, and the explanation of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from etude.app.attempts import standing_of
from etude.app.workbench import Workbench
from etude.web.events import Step


class StandingTopic:
    """Something that is said by a short text: a step says only that it has changed."""

    def __init__(self, read: Callable[[], str]) -> None:
        self._read = read

    def position(self) -> str:
        """Return where it stands."""
        return self._read()

    def after(self, position: str) -> Sequence[Step]:
        """Return one step if it has changed."""
        now = self.position()
        return [] if now == position else [Step(now, None)]


def open_submission(bench: Workbench, which: str) -> StandingTopic:
    """Return the topic `submission/KEY`.

    Raises:
        ProblemError: the user has no such submission.
    """

    def read() -> str:
        state, ahead = standing_of(bench.progress, which)
        if state != "done":
            # Whoever waits for a verdict needs a judge: the last one may have been killed.
            bench.judge.want(again=False)
        return f"{state}.{ahead}.{'failed' if bench.judge.failure else ''}"

    read()
    return StandingTopic(read)


def open_explanation(bench: Workbench, which: str) -> StandingTopic:
    """Return the topic `explanation/KEY`.

    Raises:
        ProblemError: the user has no such submission.
    """
    standing_of(bench.progress, which)
    return StandingTopic(lambda: bench.explainer.position(which))
