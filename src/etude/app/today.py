"""What a person may want to do today: from all rooms, the little that matters first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from etude.app.practice import Daily
    from etude.app.runs import RunFacts
    from etude.app.workbench import Workbench
    from etude.practice.progress import Stats

NEWEST, RECENT = 3, 5


@dataclass(frozen=True)
class Today:
    """The day at a glance."""

    daily: Daily
    stats: Stats
    due: list[str]
    """Concepts to repeat, longest overdue first."""
    running: list[RunFacts]
    ended: list[RunFacts]
    """The last runs that are not running, the newest first."""
    papers: list[dict[str, Any]]
    """The newest."""
    papers_total: int


def today(bench: Workbench) -> Today:
    """Return what there is today, without writing anything."""
    from etude.app.practice import daily_problem
    from etude.app.runs import list_facts

    runs = list_facts(bench.runs)[::-1]
    return Today(
        daily=daily_problem(bench.progress, choose=False),
        stats=bench.progress.stats(),
        due=bench.progress.due(),
        running=[run for run in runs if run.state == "running"],
        ended=[run for run in runs if run.state != "running"][:RECENT],
        papers=bench.library.newest(most=NEWEST),
        papers_total=bench.library.count(),
    )
