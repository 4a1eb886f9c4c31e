"""A user's progress: solved problems, streaks, and spaced repetition of concepts.

A streak counts days with a problem solved. One missed day in any seven is allowed, and today
counts as missed only once it is over. Days are those of the user's time zone.

Concepts are scheduled with Leitner boxes (Leitner 1972): a right answer moves a concept up one box,
due after 1, 3, 7, 21 or 60 days; a failure moves it to the first box, due tomorrow. System faults
and compile errors change nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from etude.core.errors import ProblemError
from etude.practice.judge.verdict import Verdict
from etude.practice.problem import Problem
from etude.store.practice import Opening, Profile, Review, Submission
from etude.store.upsert import insert_or_ignore, insert_or_update

DAYS = (1, 3, 7, 21, 60)
GRACE_EVERY = 7
STANDINGS = ("shaky", "seen", "solid")
"""How well a concept is known; see `Concept.standing`."""
SOLID_BOX = 3


@dataclass(frozen=True)
class Concept:
    """How well a learner knows one concept."""

    name: str
    mastery: float
    """Box reached, as a fraction of all boxes, 0 to 1."""
    due: date
    right: int
    wrong: int

    @property
    def standing(self) -> str:
        """Return `solid` after right answers on three days that it was due; otherwise `shaky`.

        A concept that no answer has failed is `seen` instead of shaky.
        """
        if round(self.mastery * len(DAYS)) >= SOLID_BOX:
            return "solid"
        return "shaky" if self.wrong else "seen"


@dataclass(frozen=True)
class Sent:
    """A submission, in short."""

    slug: str
    at: datetime
    """In the user's time zone."""
    kind: str
    """The verdict, or `waiting`."""


@dataclass(frozen=True)
class Stats:
    """Record of a user."""

    solved: int
    tried: int
    submissions: int
    streak: int
    longest: int
    by_day: dict[date, int]
    """Number of problems solved on each day."""
    concepts: list[Concept] = field(default_factory=list[Concept])
    """Weakest first."""


class UserProgress:
    """Progress of one user.

    Args:
        engine: from `store.engine.open_store`.
        user: name of the user, see `core.user`.
        clock: seconds since 1970.
    """

    def __init__(self, engine: Engine, user: str, clock: Callable[[], float] = time.time) -> None:
        self.engine, self.user, self.clock = engine, user, clock

    def timezone(self) -> ZoneInfo:
        """Return the user's time zone; UTC until one is set."""
        with Session(self.engine) as session:
            row = session.get(Profile, self.user)
            return ZoneInfo(row.timezone if row else "UTC")

    def set_timezone(self, name: str) -> None:
        """Set the user's time zone, such as `Europe/Berlin`.

        Raises:
            ProblemError: the zone is unknown.
        """
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ProblemError(
                f"unknown time zone {name!r}; use a name such as Europe/Berlin"
            ) from error
        with self.engine.begin() as connection:
            row = {"user": self.user, "timezone": name}
            insert_or_update(connection, Profile, [row], columns=["timezone"])

    def today(self) -> date:
        """Return the current day in the user's time zone."""
        return self._day(self.clock(), self.timezone())

    @staticmethod
    def _day(seconds: float, zone: ZoneInfo) -> date:
        return datetime.fromtimestamp(seconds, UTC).astimezone(zone).date()

    def open(self, slug: str) -> None:
        """Record that a problem was started."""
        row = {"user": self.user, "slug": slug, "started": self.clock()}
        with self.engine.begin() as connection:
            insert_or_ignore(connection, Opening, [row])

    def take_hint(self, slug: str, level: int) -> None:
        """Record that hints up to `level` were read."""
        self.open(slug)
        with Session(self.engine) as session, session.begin():
            row = session.get_one(Opening, (self.user, slug))
            row.hints = max(row.hints, level)

    def hints_taken(self, slug: str) -> int:
        """Return the number of hints read."""
        with Session(self.engine) as session:
            row = session.get(Opening, (self.user, slug))
            return row.hints if row else 0

    def record(self, problem: Problem, verdict: Verdict) -> None:
        """Update the concepts that a verdict concerns."""
        if verdict.kind in ("system fault", "compile error"):
            return
        concepts = (
            problem.front.tags if verdict.accepted else [verdict.concept or problem.front.tags[0]]
        )
        self._move(sorted(set(concepts)), verdict.accepted)

    def _move(self, concepts: list[str], accepted: bool) -> None:
        today = self.today()
        with Session(self.engine) as session, session.begin():
            fresh = {"user": self.user, "due": today.isoformat()}
            insert_or_ignore(
                session.connection(), Review, [{**fresh, "concept": name} for name in concepts]
            )
            for name in concepts:  # in a fixed order, to avoid deadlocks
                row = session.get_one(Review, (self.user, name), with_for_update=True)
                if accepted:
                    # Solving the same problem twice in a day does not count twice.
                    if row.right == 0 or date.fromisoformat(row.due) <= today:
                        row.box = min(row.box + 1, len(DAYS))
                    row.right += 1
                    row.due = (today + timedelta(days=DAYS[max(row.box - 1, 0)])).isoformat()
                else:
                    row.wrong += 1
                    row.box = 0
                    row.due = (today + timedelta(days=1)).isoformat()

    def concepts(self) -> list[Concept]:
        """Return all concepts met, weakest first."""
        with Session(self.engine) as session:
            rows = session.scalars(select(Review).where(Review.user == self.user))
            known = [
                Concept(
                    row.concept,
                    row.box / len(DAYS),
                    date.fromisoformat(row.due),
                    row.right,
                    row.wrong,
                )
                for row in rows
            ]
        return sorted(known, key=lambda concept: (concept.mastery, -concept.wrong, concept.name))

    def due(self) -> list[str]:
        """Return the concepts due by today, longest overdue first."""
        today = self.today()
        return [
            concept.name
            for concept in sorted(self.concepts(), key=lambda one: one.due)
            if concept.due <= today
        ]

    def solved(self) -> set[str]:
        """Return the slugs of solved problems."""
        with Session(self.engine) as session:
            wanted = (
                select(Submission.slug)
                .where(
                    Submission.user == self.user,
                    Submission.kind == "accepted",
                    Submission.visible_only.is_(False),
                )
                .distinct()
            )
            return set(session.scalars(wanted))

    def tried(self) -> set[str]:
        """Return the slugs of problems that an answer was submitted to."""
        with Session(self.engine) as session:
            wanted = select(Submission.slug).where(
                Submission.user == self.user, Submission.visible_only.is_(False)
            )
            return set(session.scalars(wanted.distinct()))

    def opened(self) -> set[str]:
        """Return the slugs of problems that were started."""
        with Session(self.engine) as session:
            return set(session.scalars(select(Opening.slug).where(Opening.user == self.user)))

    def may_read_solution(self, slug: str) -> bool:
        """Return whether a problem was solved, or its solution asked for before."""
        with Session(self.engine) as session:
            row = session.get(Opening, (self.user, slug))
        return (row is not None and row.explained) or slug in self.solved()

    def ask_for_solution(self, slug: str) -> None:
        """Record that the solution is read before the problem is solved."""
        self.open(slug)
        with Session(self.engine) as session, session.begin():
            session.get_one(Opening, (self.user, slug)).explained = True

    def recent(self, most: int) -> list[Sent]:
        """Return the last submissions, the newest first; runs of visible tests are none."""
        zone = self.timezone()
        wanted = (
            select(Submission.slug, Submission.created, Submission.kind)
            .where(Submission.user == self.user, Submission.visible_only.is_(False))
            .order_by(Submission.number.desc())
            .limit(most)
        )
        with Session(self.engine) as session:
            return [
                Sent(slug, datetime.fromtimestamp(at, UTC).astimezone(zone), kind or "waiting")
                for slug, at, kind in session.execute(wanted)
            ]

    def stats(self) -> Stats:
        """Return the whole record."""
        zone = self.timezone()
        wanted = select(Submission.slug, Submission.kind, Submission.created).where(
            Submission.user == self.user, Submission.visible_only.is_(False)
        )
        with Session(self.engine) as session:
            rows = list(session.execute(wanted.order_by(Submission.number)))
        first: dict[str, date] = {}
        by_day: dict[date, set[str]] = {}
        for slug, kind, created in rows:
            if kind == "accepted":
                day = self._day(created, zone)
                first.setdefault(slug, day)
                by_day.setdefault(day, set()).add(slug)
        current, longest = streaks(by_day, self.today())
        return Stats(
            solved=len(first),
            tried=len({slug for slug, _, _ in rows}),
            submissions=len(rows),
            streak=current,
            longest=longest,
            by_day={day: len(slugs) for day, slugs in by_day.items()},
            concepts=self.concepts(),
        )


def streaks(days: Iterable[date], today: date) -> tuple[int, int]:
    """Return the current streak and the longest one, in days with a problem solved.

    A single missed day is allowed if none was missed in the six days before it.
    """
    active = sorted(set(days))
    longest = count = since = 0
    last: date | None = None
    grace: date | None = None
    for day in active:
        gap = (day - last).days if last else 0
        missed = day - timedelta(days=1)
        if gap == 1:
            count, since = count + 1, since + 1
        elif gap == 2:
            # If the last allowed day is too recent, only the days after it count.
            count, since, grace = (count if _forgiven(missed, grace) else since) + 1, 1, missed
        else:
            count, since, grace = 1, 1, None
        last = day
        longest = max(longest, count)
    if last is None:
        return 0, 0
    away = (today - last).days
    if away <= 1:
        return count, longest
    missed = today - timedelta(days=1)
    return (0 if away > 2 else count if _forgiven(missed, grace) else since), longest


def _forgiven(missed: date, grace: date | None) -> bool:
    return grace is None or (missed - grace).days >= GRACE_EVERY
