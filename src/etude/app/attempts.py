"""Attempts at a problem: code goes into the queue, and comes back with a verdict that helps."""

from __future__ import annotations

import difflib
import re
import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from etude.core.errors import ProblemError

if TYPE_CHECKING:
    from etude.practice.diagnose import Diagnosis
    from etude.practice.judge.verdict import Shown, Verdict
    from etude.practice.problem import Problem
    from etude.practice.progress import UserProgress
    from etude.store.practice import Submission

MOST_HISTORY = 100


@dataclass(frozen=True)
class Attempt:
    """Code that was sent to the judge."""

    key: str
    slug: str
    state: str
    """`queued`, `running` or `done`."""
    position: int
    """Number of submissions ahead of it."""
    visible_only: bool
    source: str
    at: datetime
    """When it was sent, in the user's time zone."""
    verdict: Verdict | None

    @property
    def done(self) -> bool:
        """Return whether there is a verdict."""
        return self.verdict is not None


@dataclass(frozen=True)
class Reading:
    """A verdict in the order in which it is read."""

    kind: str
    """In the field's words: `wrong answer: shape`."""
    sentence: str
    """The one thing to know."""
    where: str
    """Which test, or which line."""
    shown: Shown | None
    """A visible test that fails, laid out."""
    advice: list[str]
    """What to try, as Markdown."""
    concept: str


@dataclass(frozen=True)
class Change:
    """One attempt in the history, and what was changed since the one before."""

    attempt: Attempt
    lines: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """(mark, text): `+` is new, `-` is gone, a blank is context, `@` begins another place."""
    added: int = 0
    removed: int = 0


def send(progress: UserProgress, slug: str, source: str, *, visible_only: bool) -> str:
    """Put code into the queue, and return its key.

    Raises:
        ProblemError: there is no such problem.
        QueueFullError: too many submissions wait.
    """
    from etude.practice.problem import find_problem
    from etude.practice.queue import Queue

    find_problem(slug)
    progress.open(slug)
    return Queue(progress.engine).add(progress.user, slug, source, visible_only)


def await_verdict(progress: UserProgress, key: str, seconds: float) -> bool:
    """Wait for a verdict, but not longer than so many seconds; return whether it is there."""
    from etude.practice.queue import Queue

    queue, deadline, pause = Queue(progress.engine), time.monotonic() + seconds, 0.005
    while queue.status(key).state != "done":
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
        pause = min(pause * 1.3, 0.05)
    return True


def find_attempt(progress: UserProgress, key: str) -> Attempt:
    """Return an attempt of this user.

    Raises:
        ProblemError: the user has none of this key.
    """
    from sqlalchemy import select
    from sqlalchemy.orm import Session

    from etude.store.practice import Submission

    wanted = select(Submission).where(Submission.key == key, Submission.user == progress.user)
    with Session(progress.engine) as session:
        row = session.scalar(wanted)
    if row is None:
        raise ProblemError("there is no such submission")
    return _attempt(progress, row)


def standing_of(progress: UserProgress, key: str) -> tuple[str, int]:
    """Return the state of an attempt of this user, and the number of those ahead of it.

    Raises:
        ProblemError: the user has none of this key.
    """
    from sqlalchemy import select
    from sqlalchemy.orm import Session

    from etude.practice.queue import Queue
    from etude.store.practice import Submission

    wanted = select(Submission.user).where(Submission.key == key)
    with Session(progress.engine) as session:
        if session.scalar(wanted) != progress.user:
            raise ProblemError("there is no such submission")
    status = Queue(progress.engine).status(key)
    return status.state, status.position


def latest_attempt(progress: UserProgress, slug: str) -> Attempt | None:
    """Return the last attempt at a problem, runs of the visible tests included."""
    from sqlalchemy import select
    from sqlalchemy.orm import Session

    from etude.store.practice import Submission

    wanted = (
        select(Submission)
        .where(Submission.user == progress.user, Submission.slug == slug)
        .order_by(Submission.number.desc())
        .limit(1)
    )
    with Session(progress.engine) as session:
        row = session.scalar(wanted)
    return _attempt(progress, row) if row is not None else None


def _attempt(progress: UserProgress, row: Submission) -> Attempt:
    from etude.practice.judge.verdict import Verdict
    from etude.practice.queue import Queue

    position = 0
    if row.state == "queued":
        position = Queue(progress.engine).status(row.key).position
    return Attempt(
        row.key,
        row.slug,
        row.state,
        position,
        row.visible_only,
        row.source,
        datetime.fromtimestamp(row.created, progress.timezone()),
        Verdict.from_dict(row.verdict) if row.verdict is not None else None,
    )


def read_verdict(problem: Problem, attempt: Attempt) -> Reading | None:
    """Return a verdict for reading; None while there is none."""
    verdict = attempt.verdict
    if verdict is None:
        return None
    if verdict.accepted:
        return Reading(verdict.name, _praise(attempt, verdict), "", None, [], "")
    diagnosis = diagnose_attempt(problem, attempt)
    said = sentence(diagnosis.says)
    shown = diagnosis.smallest if diagnosis.smallest and diagnosis.smallest.parts else verdict.shown
    return Reading(
        verdict.name,
        said or diagnosis.what,
        sentence(diagnosis.where),
        shown or diagnosis.smallest,
        [
            *([diagnosis.what] if verdict.kind == "system fault" else []),
            *([sentence(diagnosis.note)] if diagnosis.note else []),
            *map(sentence, diagnosis.causes),
        ],
        diagnosis.concept,
    )


def diagnose_attempt(problem: Problem, attempt: Attempt) -> Diagnosis:
    """Return why an attempt failed.

    Raises:
        ProblemError: it did not fail, or is not judged yet.
    """
    from etude.practice.diagnose import diagnose

    if attempt.verdict is None or attempt.verdict.accepted:
        raise ProblemError("only an answer that failed can be explained")
    return diagnose(problem, attempt.source, attempt.verdict)


def _praise(attempt: Attempt, verdict: Verdict) -> str:
    count = verdict.total
    tests = "test passes" if count == 1 else "tests pass"
    if attempt.visible_only:
        return f"{count} visible {tests}. Submit to be judged by the hidden ones as well."
    return f"All {count} {tests}."


def sentence(text: str) -> str:
    """Return a phrase as a sentence."""
    text = text.strip()
    if not text:
        return ""
    return text[0].upper() + text[1:] + ("" if text[-1] in ".?!`" else ".")


def history(progress: UserProgress, slug: str) -> list[Change]:
    """Return the submissions to a problem, the newest first, each compared with the one before."""
    from sqlalchemy import select
    from sqlalchemy.orm import Session

    from etude.store.practice import Submission

    wanted = (
        select(Submission)
        .where(
            Submission.user == progress.user,
            Submission.slug == slug,
            Submission.visible_only.is_(False),
        )
        .order_by(Submission.number.desc())
        .limit(MOST_HISTORY)
    )
    with Session(progress.engine) as session:
        attempts = [_attempt(progress, row) for row in session.scalars(wanted)]
    changes: list[Change] = []
    for attempt, before in zip(attempts, [*attempts[1:], None], strict=False):
        lines = difference(before.source, attempt.source) if before is not None else []
        marks = [mark for mark, _ in lines]
        changes.append(Change(attempt, lines, marks.count("+"), marks.count("-")))
    return changes


def difference(before: str, after: str) -> list[tuple[str, str]]:
    """Return the lines that differ between two texts, with two lines around them."""
    lines: list[tuple[str, str]] = []
    found = difflib.unified_diff(before.splitlines(), after.splitlines(), n=2, lineterm="")
    for line in list(found)[2:]:
        if line.startswith("@@"):
            place = re.match(r"@@ -\S+ \+(\d+)", line)
            lines.append(("@", f"line {place[1]}" if place else ""))
        else:
            lines.append((line[0], line[1:]))
    return lines
