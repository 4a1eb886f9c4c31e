"""Ranking order: diversity by maximal marginal relevance, and exploration.

A page is filled one paper at a time by score minus similarity to the papers above (maximal marginal
relevance, Carbonell and Goldstein 1998). Near duplicates of a paper above wait until the page is
full. Every tenth place goes to a paper that the scores alone would not have shown, so that the
interest can grow; the choice changes with the day and is marked.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from etude.papers.ranking.interest import Interest
from etude.papers.ranking.shelf_order import NO_LIKES, by_shelf
from etude.papers.ranking.terms import Matrix

if TYPE_CHECKING:
    from numpy.typing import NDArray

PAGE = 20
DIVERSITY = 0.5
EXPLORATION = 0.1
NEAR_COPY = 0.6
"""Cosine similarity of terms from which papers are near duplicates."""
_POOL = 10
"""Number of pages of best scores from which a page is chosen."""
EXPLORED = "from elsewhere, to find out"


@dataclass(frozen=True)
class Ranked:
    """A ranked paper."""

    row: dict[str, Any]
    score: float
    why: list[tuple[str, float]] = field(default_factory=list[tuple[str, float]])
    """Deciding terms with their contributions; a contribution of 0 is a remark."""
    explored: bool = False
    """Whether it was chosen for exploration, not by its score."""


def rank(
    rows: Sequence[dict[str, Any]],
    interest: Interest | None,
    *,
    diversity: float = DIVERSITY,
    exploration: float = EXPLORATION,
    page: int = PAGE,
    seed: str = "",
    shelf_of: Callable[[Sequence[str]], Sequence[str]] | None = None,
    n_why: int = 5,
) -> list[Ranked]:
    """Return all of `rows` in order of interest.

    Args:
        rows: papers from `Library`.
        interest: from `Interest.fit`; None for a user without feedback.
        diversity: penalty of an exact copy in standard deviations; 0 for scores alone.
        exploration: share of the places for exploration.
        page: number of places with diversity and exploration; the rest is by score.
        seed: day and user; the same seed gives the same order.
        shelf_of: shelves of a paper's categories, as `Settings.shelf_of`; without it, its primary
            category is its shelf. Used without scores.
        n_why: number of terms in each explanation.
    """
    rows = list({row["id"]: row for row in rows}.values())
    if interest is None:
        return [Ranked(row, 0.0, [(NO_LIKES, 0.0)]) for row in by_shelf(rows, shelf_of)]
    rows = by_shelf(rows, shelf_of)
    matrix = interest.corpus.vocabulary.matrix(rows)
    scores = interest.score_matrix(rows, matrix)
    order = [int(place) for place in np.argsort(-scores, kind="stable")]
    order = _diverse(order, scores, matrix, diversity, page)
    order, explored = _explored(order, rows, scores, exploration, page, seed)
    ranked: list[Ranked] = []
    for place in order:
        why = interest.why_matrix(rows[place], matrix[[place]], n_why)
        if place in explored:
            why = [(EXPLORED, 0.0), *why]
        elif not interest.likes and not interest.dislikes and not why:
            why = [(NO_LIKES, 0.0)]
        ranked.append(Ranked(rows[place], float(scores[place]), why, place in explored))
    return ranked


def _diverse(
    order: list[int], scores: NDArray[np.float64], matrix: Matrix, diversity: float, page: int
) -> list[int]:
    if diversity <= 0 or len(order) < 2:
        return order
    pool = order[: page * _POOL]
    terms = matrix[pool]
    lengths = np.sqrt(np.asarray(terms.multiply(terms).sum(axis=1), dtype=float).ravel())
    likeness = (terms @ terms.T).toarray() / np.outer(lengths, lengths).clip(min=1e-12)
    worth = scores[pool].copy()
    nearest = np.zeros(len(pool))
    left = np.ones(len(pool), dtype=bool)
    chosen: list[int] = []
    while len(chosen) < min(page, len(pool)):
        free = left & (nearest < NEAR_COPY)
        if not free.any():
            break
        best = int(np.argmax(np.where(free, worth - diversity * nearest, -np.inf)))
        chosen.append(best)
        left[best] = False
        nearest = np.maximum(nearest, likeness[best])
    rest = [place for place in range(len(pool)) if left[place]]
    return [pool[place] for place in (*chosen, *rest)] + order[len(pool) :]


def _explored(
    order: list[int],
    rows: Sequence[dict[str, Any]],
    scores: NDArray[np.float64],
    exploration: float,
    page: int,
    seed: str,
) -> tuple[list[int], set[int]]:
    count = round(page * min(max(exploration, 0.0), 1.0))
    # The lower half is what the user does not want: explore the upper one.
    middle = float(np.median(scores)) if len(scores) else 0.0
    candidates = [place for place in order[page:] if scores[place] >= middle]
    count = min(count, len(candidates))
    if not count:
        return order, set()
    # By id, so that the choice does not depend on the order of the input.
    candidates.sort(key=lambda place: rows[place]["id"])
    digest = hashlib.sha256(f"{seed}\n{rows[order[0]]['announced']}".encode()).digest()
    chosen = random.Random(int.from_bytes(digest[:8], "big")).sample(candidates, count)
    rest = [place for place in order if place not in set(chosen)]
    step = max(1, page // count)
    for turn, place in enumerate(chosen):
        rest.insert(min(step * (turn + 1) - 1, len(rest)), place)
    return rest, set(chosen)
