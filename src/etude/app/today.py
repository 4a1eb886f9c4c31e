"""What a person may want to do today: from all rooms, the little that matters first."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from etude.app.practice import Daily
    from etude.app.runs import RunFacts
    from etude.app.workbench import Workbench
    from etude.papers.card import Card
    from etude.practice.problem import Problem
    from etude.practice.progress import Stats, UserProgress

FIRST = "create-tensordataset"
"""The problem that a newcomer begins with."""
MOST = 3
"""Rows of each list."""
RECENT_RUNS = 3
PATIENCE = 0.4
"""Seconds that the page waits for papers in the order of the reader's interest."""


@dataclass(frozen=True)
class NextStep:
    """The one thing to do first."""

    kind: Literal["first", "draft", "daily", "due", "free"]
    """A newcomer's first problem; code that was begun; the day's problem; a concept that is due;
    nothing in particular."""
    problem: Problem | None = None
    """None if nothing is due."""
    why: str = ""


@dataclass(frozen=True)
class Due:
    """A concept to repeat, and a problem that asks for it."""

    concept: str
    problem: Problem
    solved: bool


@dataclass(frozen=True)
class ShownPaper:
    """A paper, and the words that brought it here."""

    card: Card
    because: list[str]


@dataclass(frozen=True)
class PapersToday:
    """The papers that come first."""

    papers: list[ShownPaper]
    total: int
    """In the library."""
    ranked: bool
    """Whether they are in the order of the reader's interest."""
    pending: bool
    """Whether that order is being computed."""


@dataclass(frozen=True)
class RunsToday:
    """Runs at work or waiting, and the last ones that ended."""

    at_work: list[RunFacts]
    ended: list[RunFacts]
    total: int


@dataclass(frozen=True)
class Today:
    """The day at a glance."""

    day: date
    next: NextStep
    daily: Daily
    drafts: list[Problem]
    """Begun and not solved, the last saved first, without the one to do next."""
    due: list[Due]
    """The longest overdue first, without the one to do next."""
    due_total: int
    """Concepts that are due."""
    stats: Stats
    streak: bool
    """Whether the user wants it counted."""
    runs: RunsToday
    papers: PapersToday


def today(bench: Workbench) -> Today:
    """Return what there is today, without writing anything."""
    from etude.app.practice import daily_problem
    from etude.practice.problem import load_shelf

    shelf = {problem.slug: problem for problem in load_shelf()}
    solved, stats = bench.progress.solved(), bench.progress.stats()
    daily = daily_problem(bench.progress, choose=False)
    drafts = [
        shelf[slug] for slug, _ in bench.drafts.newest() if slug in shelf and slug not in solved
    ]
    concepts = bench.progress.due()
    due = _due(concepts, shelf.values(), solved)
    step = _next(bench.progress, shelf, daily, drafts, due, stats)
    chosen = step.problem.slug if step.problem else ""
    return Today(
        day=daily.choice.day,
        next=step,
        daily=daily,
        drafts=[one for one in drafts if one.slug != chosen][:MOST],
        due=[one for one in due if one.problem.slug != chosen][:MOST],
        due_total=len(concepts),
        stats=stats,
        streak=bench.choices.read().streak,
        runs=runs_today(bench),
        papers=_papers(bench),
    )


def _next(
    progress: UserProgress,
    shelf: dict[str, Problem],
    daily: Daily,
    drafts: Sequence[Problem],
    due: Sequence[Due],
    stats: Stats,
) -> NextStep:
    if not stats.tried and not drafts and not progress.opened() and FIRST in shelf:
        why = "A first problem, solved in a few lines; a judge on this machine says what is wrong."
        return NextStep("first", shelf[FIRST], why)
    if drafts:
        return NextStep("draft", drafts[0], "You began it; your code is as you left it.")
    if not daily.solved:
        return NextStep("daily", daily.choice.problem, daily.choice.why)
    if due:
        return NextStep("due", due[0].problem, f"{due[0].concept} is due again")
    return NextStep("free")


def _due(concepts: Iterable[str], shelf: Iterable[Problem], solved: set[str]) -> list[Due]:
    """Return a problem for each concept: one that is not solved yet where there is one."""
    found: dict[str, Due] = {}
    problems = list(shelf)
    for concept in concepts:
        asking = [one for one in problems if concept in one.front.tags and one.slug not in found]
        asking.sort(key=lambda one: one.slug in solved)  # stable: easier ones come first
        if asking:
            first = asking[0]
            found[first.slug] = Due(concept, first, first.slug in solved)
        if len(found) > MOST:
            break
    return list(found.values())


def runs_today(bench: Workbench) -> RunsToday:
    """Return the runs to show; those at work first, in the order in which they began."""
    from etude.app.runs import list_facts

    runs = list_facts(bench.runs)
    waiting = ("queued", "starting", "running", "stopping")
    at_work = [run for run in runs if run.state in waiting]
    at_work.sort(key=lambda run: (run.place or 0, run.name))
    ended = [run for run in reversed(runs) if run.state not in waiting]
    return RunsToday(at_work, ended[:RECENT_RUNS], len(runs))


def _papers(bench: Workbench) -> PapersToday:
    from etude.app.papers.reading import listed
    from etude.papers.card import card

    total, day = bench.library.count(), bench.library.last_day()
    if not total:
        return PapersToday([], 0, ranked=False, pending=False)
    why: dict[str, list[tuple[str, float]]] = {}
    rows, pending = bench.library.newest(most=MOST), False
    if day is not None and bench.reader.stamp():
        # The same request as the room's first page, so that one answer serves both.
        answer = bench.ranking.ask("day", PATIENCE, day=day, shelf=None, replaced=False)
        pending = not answer.current
        if answer.value:
            why = dict(answer.value[:MOST])
            rows = bench.library.get_many(list(why))
    words = [tuple((str(a), float(b)) for a, b in why.get(row["id"], ())) for row in rows]
    shown = [ShownPaper(card(one.row), one.because()) for one in listed(bench.reader, rows, words)]
    return PapersToday(shown, total, ranked=bool(why), pending=pending)
