"""Papers whose texts try to be HTML, in an installation of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from etude.app.papers.collecting import follow_up
from etude.app.workbench import Workbench, open_workbench
from etude.papers.record import Announcement, Sighting

HOSTILE = '<img src=x onerror="window.hacked=1">'
SUBJECTS = (
    "A YOLOv8 detector of small objects",
    "Diffusion of images in few steps",
    "Low-rank adapters for language models",
    "Graph networks for molecules",
)


def sighting(number: int, day: date, **changes: object) -> Sighting:
    """A paper of one of four subjects."""
    subject = SUBJECTS[number % len(SUBJECTS)]
    facts: dict = {
        "id": f"2604.{number:05}",
        "title": f"{subject}, part {number}",
        "abstract": f"We study {subject.lower()}. Our method number {number} improves accuracy.",
        "authors": ("Ada Lovelace", f"Bob Builder{number}"),
        "categories": (("cs.CV", "cs.LG") if number % 2 else ("cs.CL",)),
        "version": 1,
        "published": datetime(2026, 4, 1, 12, tzinfo=UTC),
        "announced": day,
        "announcement": Announcement.NEW,
    }
    return Sighting(**(facts | changes))  # type: ignore[arg-type]


@contextmanager
def installation(folder: Path) -> Iterator[Workbench]:
    """Rooms with eighty papers on two days, one of them hostile, indexed and summarised."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ETUDE_HOME", str(folder / "home"))
        patch.setenv("ETUDE_DATABASE", "")
        patch.setenv("ETUDE_USER", "ada")
        # Nothing listens there: no test asks arXiv.
        patch.setenv("ETUDE_ARXIV", "http://127.0.0.1:9")
        bench = open_workbench(runs=folder / "runs")
        first, second = date(2026, 4, 2), date(2026, 4, 3)
        bench.library.put([sighting(number, first) for number in range(1, 41)])
        bench.library.put([sighting(number, second) for number in range(41, 80)])
        hostile = sighting(
            80,
            second,
            title=f"Title {HOSTILE}",
            abstract=f"Hostile abstract {HOSTILE} about walruses. It ends.",
            authors=(f"Eve {HOSTILE}",),
            comment=HOSTILE,
        )
        bench.library.put([hostile])
        follow_up(bench.library)
        yield bench
        bench.close()
