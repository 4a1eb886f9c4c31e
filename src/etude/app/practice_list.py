"""The list of problems: what a reader filters it by, and what there is to choose from."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from etude.core.errors import ProblemError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from etude.practice.problem import Problem
    from etude.practice.progress import UserProgress
    from etude.practice.tracks import Track

STATES = ("new", "begun", "solved")
TITLES = {
    "pytorch": "PyTorch",
    "llm": "Language models",
    "machine-learning": "Machine learning",
    "computer-vision": "Computer vision",
}
ABOUT = {
    "pytorch": "Tensors, autograd, data sets and the training loop: what every model is made of.",
    "llm": "Attention, tokens, quantisation and LoRA: the parts of a language model, by hand.",
    "machine-learning": "Gradients, trees, metrics and resampling, in NumPy and PyTorch.",
    "computer-vision": "Images, boxes and features: geometry that has to be right to the pixel.",
}


@dataclass(frozen=True)
class Row:
    """A problem in the list."""

    problem: Problem
    state: str
    """`new`, `begun` (opened, or an answer submitted), or `solved`."""


@dataclass(frozen=True)
class Filters:
    """What the list is narrowed to; empty is no limit."""

    collection: str = ""
    difficulty: str = ""
    concept: str = ""
    state: str = ""
    words: str = ""

    def __bool__(self) -> bool:
        """Return whether anything is filtered."""
        return any((self.collection, self.difficulty, self.concept, self.state, self.words))


@dataclass(frozen=True)
class Group:
    """The problems of a collection that the filters leave."""

    name: str
    title: str
    about: str
    rows: list[Row]
    solved: int
    """Of the whole collection."""
    total: int
    by_difficulty: list[tuple[str, int, int]]
    """(difficulty, solved, all), of the whole collection."""


@dataclass(frozen=True)
class Listing:
    """The list, and the choices that its form offers with the number of problems of each."""

    groups: list[Group]
    shown: int
    total: int
    solved: int
    collections: list[tuple[str, str, int]]
    """(name, title, count)."""
    difficulties: list[tuple[str, int]]
    concepts: list[tuple[str, int]]
    states: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])


@dataclass(frozen=True)
class TrackShown:
    """A track, and how far its reader is."""

    track: Track
    rows: list[tuple[Row, str]]
    """Each problem, and what it adds."""

    @property
    def solved(self) -> int:
        """Problems of it that are solved."""
        return sum(row.state == "solved" for row, _ in self.rows)

    @property
    def state(self) -> str:
        """`new`, `begun` or `solved`, as of a problem."""
        if self.solved == len(self.rows):
            return "solved"
        return "new" if all(row.state == "new" for row, _ in self.rows) else "begun"

    @property
    def next(self) -> Problem | None:
        """The first problem that is not solved; None at the end."""
        return next((row.problem for row, _ in self.rows if row.state != "solved"), None)


def collection_title(name: str) -> str:
    """Return how a collection is called on pages."""
    return TITLES.get(name, name.replace("-", " ").capitalize())


def tracks(progress: UserProgress) -> list[TrackShown]:
    """Return the tracks of which a problem is on the shelf, with how far the user is on each.

    Raises:
        ProblemError: the file of tracks is damaged.
    """
    from etude.practice.tracks import load_tracks

    shown = [track_shown(progress, track.name) for track in load_tracks()]
    return [track for track in shown if track.rows]


def track_shown(progress: UserProgress, name: str) -> TrackShown:
    """Return a track, with how far the user is on it; a problem that was deleted is left out.

    Raises:
        ProblemError: there is no such track.
    """
    from etude.practice.problem import load_shelf
    from etude.practice.tracks import find_track

    track = find_track(name)
    shelf = {problem.slug: problem for problem in load_shelf()}
    solved, begun = progress.solved(), progress.tried() | progress.opened()
    return TrackShown(
        track,
        [
            (_row(shelf[step.problem], solved, begun), step.why)
            for step in track.steps
            if step.problem in shelf
        ],
    )


def _row(problem: Problem, solved: set[str], begun: set[str]) -> Row:
    slug = problem.slug
    return Row(problem, "solved" if slug in solved else "begun" if slug in begun else "new")


def listing(progress: UserProgress, filters: Filters) -> Listing:
    """Return the problems that the filters leave.

    Raises:
        ProblemError: there is no such collection, difficulty or state.
    """
    from etude.practice.problem import DIFFICULTIES, load_shelf

    solved, begun = progress.solved(), progress.tried() | progress.opened()
    rows = [_row(problem, solved, begun) for problem in load_shelf()]
    collections = list(dict.fromkeys(row.problem.collection for row in rows))
    for given, known, what in (
        (filters.collection, collections, "collection"),
        (filters.difficulty, DIFFICULTIES, "difficulty"),
        (filters.state, STATES, "state"),
    ):
        if given and given not in known:
            raise ProblemError(f"there is no {what} {given!r}; there are {', '.join(known)}")
    words = filters.words.lower().split()
    left = [row for row in rows if _fits(row, filters, words)]
    groups = [_group(name, rows, left) for name in collections]
    concepts = Counter(tag for row in rows for tag in row.problem.front.tags)
    return Listing(
        [group for group in groups if group.rows],
        shown=len(left),
        total=len(rows),
        solved=sum(row.state == "solved" for row in rows),
        collections=[
            (name, collection_title(name), sum(row.problem.collection == name for row in rows))
            for name in collections
        ],
        difficulties=_counted(DIFFICULTIES, (row.problem.front.difficulty for row in rows)),
        concepts=sorted(concepts.items(), key=lambda one: one[0].lower()),
        states=_counted(STATES, (row.state for row in rows)),
    )


def _fits(row: Row, filters: Filters, words: list[str]) -> bool:
    problem, front = row.problem, row.problem.front
    for given, own in (
        (filters.collection, problem.collection),
        (filters.difficulty, front.difficulty),
        (filters.state, row.state),
    ):
        if given and given != own:
            return False
    if filters.concept and filters.concept not in front.tags:
        return False
    if not words:
        return True
    text = " ".join((problem.title, problem.slug, *front.tags, problem.statement)).lower()
    return all(word in text for word in words)


def _group(name: str, rows: list[Row], left: list[Row]) -> Group:
    own = [row for row in rows if row.problem.collection == name]
    by_difficulty = [
        (
            difficulty,
            sum(row.state == "solved" for row in own if row.problem.front.difficulty == difficulty),
            count,
        )
        for difficulty, count in _counted(
            ("easy", "medium", "hard"), (row.problem.front.difficulty for row in own)
        )
    ]
    return Group(
        name,
        collection_title(name),
        ABOUT.get(name, ""),
        [row for row in left if row.problem.collection == name],
        sum(row.state == "solved" for row in own),
        len(own),
        by_difficulty,
    )


def _counted(names: Iterable[str], values: Iterable[str]) -> list[tuple[str, int]]:
    counts = Counter(values)
    return [(name, counts[name]) for name in names]
