"""Papers of the fake server: events of each paper by day, and their visibility over time.

A paper is a list of events. Each appears in the feeds of one day (a metadata edit in none), and in
OAI-PMH and the query API from the evening before.
"""

from __future__ import annotations

import json
import lzma
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from etude.core.errors import PapersError
from etude.papers.calendar import (
    deadline,
    expected_feed,
    last_feed,
    next_feed,
    no_feed,
    publication,
)
from etude.papers.categories import oai_set
from etude.papers.record import Announcement

LICENCE = "http://arxiv.org/licenses/nonexclusive-distrib/1.0/"


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a paper."""

    number: int
    submitted: datetime
    title: str
    abstract: str
    authors: tuple[str, ...]
    comment: str = ""
    source: str = ""
    """Flags of the source's type; `I` if the full text was removed."""


@dataclass(frozen=True, slots=True)
class Event:
    """A change of a paper on a day."""

    day: date
    kind: Announcement | None
    """None for an edit that no feed announces."""
    version: Version
    categories: tuple[str, ...]
    journal_ref: str = ""
    doi: str = ""
    licence: str = LICENCE
    shown_in: tuple[str, ...] | None = None
    """Categories that carry it as `kind`; None: the first, with a cross-list in the others."""


@dataclass(slots=True)
class FakePaper:
    """A paper and its events, by day."""

    id: str
    events: list[Event]

    @property
    def first(self) -> Version:
        """Version 1."""
        return self.events[0].version

    def versions(self, until: Event) -> list[Version]:
        """Return all versions up to that of an event, oldest first."""
        found: dict[int, Version] = {}
        for event in self.events:
            found[event.version.number] = event.version
            if event is until:
                break
        return [found[number] for number in sorted(found)]


@dataclass(frozen=True, slots=True)
class State:
    """State of a paper at one time."""

    paper: FakePaper
    event: Event

    @property
    def stamp(self) -> date:
        """Return the day of the last change."""
        return self.event.day

    @property
    def sets(self) -> list[str]:
        """Return the OAI-PMH sets that contain it."""
        return sorted({oai_set(category) for category in self.event.categories})


@dataclass(slots=True)
class World:
    """All papers of the server."""

    papers: dict[str, FakePaper] = field(default_factory=dict[str, FakePaper])
    _feeds: dict[date, list[State]] = field(default_factory=dict[date, list[State]])
    _states: tuple[date, list[State]] | None = None
    _sets: dict[str, list[State]] = field(default_factory=dict[str, list[State]])

    def add(self, paper: FakePaper) -> None:
        """Add a paper, or its events to an existing paper."""
        if paper.id in self.papers:
            paper = FakePaper(paper.id, [*self.papers[paper.id].events, *paper.events])
        paper.events.sort(key=lambda event: (event.day, event.version.number))
        self.papers[paper.id] = paper
        self._feeds.clear()
        self._states = None
        self._sets.clear()

    def days(self) -> list[date]:
        """Return the days with events."""
        return sorted({event.day for paper in self.papers.values() for event in paper.events})

    def states(self, moment: datetime) -> list[State]:
        """Return every paper visible at `moment`, in OAI-PMH's order of day and id."""
        day = _visible_until(moment)
        if self._states is None or self._states[0] != day:
            found: list[State] = []
            for paper in self.papers.values():
                seen = [event for event in paper.events if event.day <= day]
                if seen:
                    found.append(State(paper, seen[-1]))
            found.sort(key=lambda state: (state.stamp, state.paper.id))
            self._states = (day, found)
            self._sets.clear()
        return self._states[1]

    def in_set(self, moment: datetime, name: str) -> list[State]:
        """Return the visible papers of an OAI-PMH set, a group or an archive, or all for ``""``."""
        states = self.states(moment)
        if not name:
            return states
        if name not in self._sets:
            self._sets[name] = [
                state
                for state in states
                if any(of == name or of.startswith(f"{name}:") for of in state.sets)
            ]
        return self._sets[name]

    def announced(self, day: date, categories: Sequence[str]) -> list[tuple[State, Announcement]]:
        """Return the feed of `categories` on `day`: replacements first, new papers last."""
        if not self._feeds:
            for paper in self.papers.values():
                for event in paper.events:
                    self._feeds.setdefault(event.day, []).append(State(paper, event))
        found: list[tuple[State, Announcement]] = []
        for state in self._feeds.get(day, []):
            kind = _kind_in(state.event, categories)
            if kind is not None:
                found.append((state, kind))
        order = [Announcement.REPLACE_CROSS, Announcement.REPLACE, Announcement.CROSS]
        found.sort(key=lambda of: (order.index(of[1]) if of[1] in order else 3, of[0].paper.id))
        return found


@lru_cache(maxsize=64)
def _visible_until(moment: datetime) -> date:
    """Return the last day whose papers OAI-PMH has at `moment`."""
    day = moment.astimezone(UTC).date() + timedelta(days=1)
    while publication(day) > moment:
        day -= timedelta(days=1)
    return day


def _kind_in(event: Event, categories: Sequence[str]) -> Announcement | None:
    if event.kind is None or (event.kind is Announcement.REPLACE and event.version.number >= 6):
        return None
    wanted = {category.lower() for category in categories}

    def asked(category: str) -> bool:
        return category.lower() in wanted or category.partition(".")[0].lower() in wanted

    if event.shown_in is not None:
        return event.kind if any(asked(category) for category in event.shown_in) else None
    if asked(event.categories[0]):
        return event.kind
    if any(asked(category) for category in event.categories[1:]):
        return Announcement.CROSS if event.kind is Announcement.NEW else Announcement.REPLACE_CROSS
    return None


def submitted_for(day: date, place: float) -> datetime:
    """Return a submission time for a paper of the feed of `day`; `place` is from 0 to 1."""
    before = day - timedelta(days=1)
    while no_feed(before) is not None:
        before -= timedelta(days=1)
    begin, end = deadline(before).astimezone(UTC), deadline(day).astimezone(UTC)
    moment = begin + (end - begin) * (0.001 + 0.998 * place)
    return moment.replace(microsecond=0)


_TOPICS = (
    *("object detection", "diffusion models", "machine translation", "graph networks"),
    *("speech recognition", "pose estimation", "question answering", "image segmentation"),
    *("reinforcement learning", "large language models", "YOLOv8 detectors", "LoRA adapters"),
)
_MANNERS = (
    *("Efficient", "Robust", "Learned", "Sparse", "Contrastive", "Hierarchical"),
    *("Self-Supervised", "Multi-Scale", "Low-Rank", "Causal", "Open-World", "Quantised"),
)
_PEOPLE = (
    *("André Müller", "Łukasz Nowák", "Søren Østergaard", "María Núñez", "Wei Zhang"),
    *("Ada Lovelace", "Paul Erdős", "François Dupont", "İpek Yılmaz", "Chidi Okafor"),
    *("Jan van den Berg", "Ana Sofía Ruiz", "Jiří Dvořák", "Mehmet Çelik", "Yuki Tanaka"),
)
_HOSTILE = (
    "0",
    "A <script>alert(1)</script> of $O(n^{2})$ & \\emph{more}",
    "\u202eReversed\u202c titles, and {\\bf braces} left {open",
)


LATER_DAYS = 3
"""Days after the last announcement of synthetic papers, with replacements and withdrawals."""


def generated(
    count: int,
    *,
    first: date = date(2026, 5, 4),
    days: int = 5,
    seed: int = 0,
    categories: Sequence[str] = ("cs.CV", "cs.CL", "cs.LG", "stat.ML", "cs.AI"),
) -> World:
    """Make a world of `count` synthetic papers, announced over `days` feed days from `first`.

    Some are replaced, withdrawn, cross-listed later or edited; some have hostile titles.
    """
    chosen = random.Random(seed)
    calendar = [first if no_feed(first) is None else next_feed(first)]
    while len(calendar) < days + LATER_DAYS:
        calendar.append(next_feed(calendar[-1]))
    world = World()
    for number in range(count):
        index = number * days // count
        day = calendar[index]
        place = (number * days / count) % 1
        topic, manner = chosen.choice(_TOPICS), chosen.choice(_MANNERS)
        title = f"{manner} {topic.capitalize()} with {chosen.choice(_TOPICS)} ({number})"
        if number % 50 < len(_HOSTILE):
            title = _HOSTILE[number % 50]
        abstract = (
            f"We study {topic}. Methods so far need {chosen.randint(2, 90)} GPU hours. Our "
            f"{manner.lower()} method reaches {chosen.uniform(60, 99):.1f}\\% on benchmark "
            f"{number}, with $O(n \\log n)$ time & no <b>extra</b> data.\n  A second paragraph."
        )
        version = Version(
            1,
            submitted_for(day, place),
            title,
            abstract,
            tuple(chosen.sample(_PEOPLE, chosen.randint(1, 5))),
            comment=chosen.choice(["", "12 pages, 3 figures", "Accepted at a workshop"]),
        )
        names = tuple(chosen.sample(list(categories), chosen.randint(1, min(3, len(categories)))))
        events = [Event(day, Announcement.NEW, version, names)]
        key = f"{day:%y%m}.{number + 1:05d}"
        _later(chosen, events, calendar[index + 1 :], categories)
        world.add(FakePaper(key, events))
    return world


def _later(
    chosen: random.Random, events: list[Event], days: Sequence[date], categories: Sequence[str]
) -> None:
    """Add later events of a paper."""
    fate = chosen.random()
    event, day = events[-1], days[0]
    if fate < 0.12:
        version = replace(
            event.version,
            number=2,
            submitted=submitted_for(day, chosen.random()),
            abstract=event.version.abstract + " Revised.",
            comment="Second version",
        )
        events.append(replace(event, day=day, kind=Announcement.REPLACE, version=version))
        if fate < 0.04:
            last = replace(
                version,
                number=3,
                submitted=submitted_for(days[1], chosen.random()),
                comment="This paper has been withdrawn by the authors: an error in Lemma 1",
                source="I",
            )
            events.append(replace(events[-1], day=days[1], version=last))
    elif fate < 0.18:
        rest = [name for name in categories if name not in event.categories]
        if rest:
            more = (*event.categories, rest[0])
            events.append(
                replace(
                    event,
                    day=day,
                    kind=Announcement.CROSS,
                    categories=more,
                    shown_in=(rest[0],),
                )
            )
    elif fate < 0.24:
        edited = {"journal_ref": "Journal of Examples 1 (2026) 1-9", "doi": "10.1000/example"}
        events.append(replace(event, day=day, kind=None, **edited))


def recorded(
    folder: Path, *, since: date | None = None, until: date | None = None, most: int | None = None
) -> World:
    """Load the world from a folder with `corpus.jsonl.xz`, `days/*.jsonl` and `versions.json`.

    Missing events are filled in: a paper is new on its first day and replaced on later ones,
    and was submitted in time for its day.

    Raises:
        PapersError: the folder has none of the files, or one is unreadable.
    """
    days: dict[str, set[date]] = {}
    records: dict[str, dict[str, Any]] = {}
    try:
        for record, announced in _lines(folder):
            kept = {day for day in announced if _within(day, since, until)}
            if not kept or (most is not None and len(records) >= most and record["id"] not in days):
                continue
            days.setdefault(record["id"], set()).update(kept)
            records[record["id"]] = record
        versions = _versions(folder)
    except (OSError, ValueError, KeyError, EOFError, lzma.LZMAError) as error:
        raise PapersError(f"{folder} cannot be replayed: {error}") from error
    if not records and not versions:
        raise PapersError(f"{folder} has none of corpus.jsonl.xz, days/*.jsonl and versions.json")
    world = World()
    by_day: dict[date, list[str]] = {}
    for key in sorted(days):
        for day in days[key]:
            by_day.setdefault(day, []).append(key)
    place = {
        (key, day): index / len(keys)
        for day, keys in by_day.items()
        for index, key in enumerate(keys)
    }
    for key, of in days.items():
        world.add(_paper(key, records[key], sorted(of), place))
    for key, paper in versions.items():
        if key not in world.papers and (most is None or len(world.papers) < most):
            events = [event for event in paper.events if _within(event.day, since, until)]
            if events:
                world.add(FakePaper(key, events))
    return world


def _within(day: date, since: date | None, until: date | None) -> bool:
    return (since is None or day >= since) and (until is None or day <= until)


def _lines(folder: Path) -> Iterable[tuple[dict[str, Any], list[date]]]:
    corpus = folder / "corpus.jsonl.xz"
    if corpus.exists():
        with lzma.open(corpus, "rt", encoding="utf-8") as file:
            for line in file:
                record = cast("dict[str, Any]", json.loads(line))
                yield record, [last_feed(date.fromisoformat(day)) for day in record["announced"]]
    for path in sorted((folder / "days").glob("*.jsonl")):
        day = last_feed(date.fromisoformat(path.stem))
        for line in path.read_text(encoding="utf-8").splitlines():
            record = cast("dict[str, Any]", json.loads(line))
            record["abstract"] = record["summary"]
            yield record, [day]


def _paper(
    key: str, record: dict[str, Any], days: list[date], place: dict[tuple[str, date], float]
) -> FakePaper:
    events: list[Event] = []
    for number, day in enumerate(days, 1):
        version = Version(
            number,
            submitted_for(day, place[key, day]),
            record["title"],
            record["abstract"],
            tuple(record["authors"]),
            comment=record.get("comment") or "",
        )
        kind = Announcement.NEW if number == 1 else Announcement.REPLACE
        events.append(Event(day, kind, version, tuple(record["categories"])))
    return FakePaper(key, events)


def _versions(folder: Path) -> dict[str, FakePaper]:
    path = folder / "versions.json"
    if not path.exists():
        return {}
    found: dict[str, FakePaper] = {}
    for record in json.loads(path.read_text(encoding="utf-8"))["papers"]:
        key, _, newest = record["arxiv_id"].rpartition("v")
        first = datetime.fromisoformat(record["published"]).replace(hour=12, tzinfo=UTC)
        last = datetime.fromisoformat(record["updated"]).replace(hour=12, tzinfo=UTC)
        count = int(newest)
        primary = record["primary_category"]
        categories = tuple(dict.fromkeys([primary, *record["categories"]]))
        events: list[Event] = []
        for number in range(1, count + 1):
            moment = first + (last - first) * ((number - 1) / max(1, count - 1))
            version = Version(
                number,
                moment.replace(microsecond=0),
                record["title"],
                record["summary"],
                tuple(record["authors"]),
                comment=record["comment"],
            )
            kind = Announcement.NEW if number == 1 else Announcement.REPLACE
            more = {"journal_ref": record["journal_ref"], "doi": record["doi"]}
            events.append(Event(expected_feed(moment), kind, version, categories, **more))
        found[key] = FakePaper(key, events)
    return found
