"""Reading: the list of problems, collections, tracks, a problem's page, history and solution."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from etude.app.attempts import history
from etude.app.practice import daily_problem
from etude.app.practice_list import Filters, collection_title, listing, track_shown, tracks
from etude.app.wrong_answers import wrong_answers
from etude.web.bench import Bench
from etude.web.events import Source
from etude.web.pages import render
from etude.web.room import Room
from etude.web.rooms.practise.answering import router as answering
from etude.web.rooms.practise.problem_page import (
    Slug,
    attempt_shown,
    find,
    problem_page,
)
from etude.web.rooms.practise.topics import open_explanation, open_submission

router = APIRouter(prefix="/practise")
ROOM = Room(
    "practise",
    "Practise",
    "/practise",
    [router, answering],
    Path(__file__).parent,
    [Source("submission", open_submission), Source("explanation", open_explanation)],
)

Word = Annotated[str, Query(max_length=200)]


@router.get("")
def index(
    request: Request,
    bench: Bench,
    collection: Word = "",
    difficulty: Word = "",
    concept: Word = "",
    state: Word = "",
    q: Word = "",
) -> HTMLResponse:
    """List the problems that the filters leave, by collection."""
    filters = Filters(collection, difficulty, concept, state, q.strip())
    return render(
        request,
        "practise/index.html",
        listing=listing(bench.progress, filters),
        filters=filters,
        daily=daily_problem(bench.progress, choose=False),
        tracks=[] if filters else tracks(bench.progress),
    )


@router.get("/collections/{name}")
def collection(request: Request, bench: Bench, name: Slug) -> HTMLResponse:
    """Show a collection: what it is about, its difficulty, how far its reader is."""
    found = listing(bench.progress, Filters(collection=name))
    return render(request, "practise/collection.html", group=found.groups[0])


@router.get("/tracks/{name}")
def track(request: Request, bench: Bench, name: Slug) -> HTMLResponse:
    """Show a track: its problems in order, what each adds, how far its reader is."""
    return render(request, "practise/track.html", shown=track_shown(bench.progress, name))


@router.get("/{slug}")
def problem(
    request: Request,
    bench: Bench,
    slug: Slug,
    of: Annotated[str, Query(max_length=32)] = "",
    tab: Annotated[str, Query(max_length=32)] = "",
) -> HTMLResponse:
    """Show a problem, the code so far, and the verdict on the last attempt or the one named."""
    found = find(slug)
    return problem_page(request, bench, found, attempt_shown(bench, slug, of), tab)


@router.get("/{slug}/history")
def past(request: Request, bench: Bench, slug: Slug) -> HTMLResponse:
    """Show all submissions to a problem, and what was changed between them."""
    found = find(slug)
    changes = history(bench.progress, slug)
    return render(
        request,
        "practise/history.html",
        problem=found,
        changes=changes,
        collection=collection_title(found.collection),
    )


@router.get("/{slug}/solution")
def solution(request: Request, bench: Bench, slug: Slug) -> HTMLResponse:
    """Show the lesson, the author's solution and wrong answers, to whoever may read them."""
    found = find(slug)
    allowed = bench.progress.may_read_solution(slug)
    return render(
        request,
        "practise/solution.html",
        problem=found,
        allowed=allowed,
        solved=slug in bench.progress.solved(),
        wrong=wrong_answers(found) if allowed else [],
        collection=collection_title(found.collection),
    )
