"""Writing: drafts, runs, submissions, hints, explanations, and asking for the solution.

Each form of a problem's page carries its code and saves it first, so that no button loses what was
typed. All lead back to a page by GET, which shows what has changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Form, HTTPException, Query, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response

from etude.app.attempts import await_verdict, find_attempt, send
from etude.app.practice import next_hint
from etude.core.errors import ProblemError
from etude.practice.drafts import MOST_CHARACTERS
from etude.web.bench import Bench
from etude.web.rooms.practise.problem_page import Slug, find

SOON_SECONDS = 1.0
"""How long an answer waits for its verdict, which a judge that runs gives in a tenth of that."""

router = APIRouter(prefix="/practise")


@dataclass(frozen=True)
class Written:
    """The code of a form."""

    source: str
    revision: int
    tab: str


def _written(
    source: Annotated[str, Form(max_length=2 * MOST_CHARACTERS)],
    revision: Annotated[int, Form(ge=0, lt=2**31)],
    tab: Annotated[str, Form(pattern=r"^[0-9a-f]{16}$")],
) -> Written:
    # Browsers send line ends as CRLF.
    return Written(source.replace("\r\n", "\n").replace("\r", "\n"), revision, tab)


Code = Annotated[Written, Depends(_written)]


def _save(bench: Bench, slug: str, code: Written) -> tuple[int, bool]:
    """Save a form's code; return the draft's revision, and whether it has this code."""
    problem = find(slug)
    if code.revision == 0 and code.source == problem.starter and bench.drafts.read(slug) is None:
        return 0, True
    saved, agrees = bench.drafts.save(slug, code.source, code.revision, code.tab)
    return saved.revision, agrees


def _back(slug: str, place: str, key: str = "", tab: str = "") -> RedirectResponse:
    """Lead back to the problem: to an attempt, and to a tab's own code if that is a copy."""
    query = urlencode({name: value for name, value in (("of", key), ("tab", tab)) if value})
    return RedirectResponse(f"/practise/{slug}{'?' if query else ''}{query}#{place}", 303)


@router.get("/{slug}/draft")
def draft(bench: Bench, slug: Slug) -> JSONResponse:
    """Return the draft: a tab that is looked at again takes up what another one saved."""
    problem = find(slug)
    saved = bench.drafts.read(slug)
    return JSONResponse(
        {
            "revision": saved.revision if saved else 0,
            "source": saved.source if saved else problem.starter,
        }
    )


@router.post("/{slug}/draft")
def save(request: Request, bench: Bench, slug: Slug, code: Code) -> Response:
    """Save the code, and make a judge ready: it will be wanted soon."""
    revision, agrees = _save(bench, slug, code)
    bench.judge.want(again=False)
    if "application/json" in request.headers.get("accept", ""):
        return JSONResponse({"revision": revision, "agrees": agrees})
    return _back(slug, "answer") if agrees else _back(slug, "conflict", tab=code.tab)


@router.post("/{slug}/run")
def run(bench: Bench, slug: Slug, code: Code) -> Response:
    """Run the visible tests."""
    return _send(bench, slug, code, visible_only=True)


@router.post("/{slug}/submit")
def submit(bench: Bench, slug: Slug, code: Code) -> Response:
    """Submit the code to all tests."""
    return _send(bench, slug, code, visible_only=False)


def _send(bench: Bench, slug: str, code: Written, *, visible_only: bool) -> Response:
    _, agrees = _save(bench, slug, code)
    key = send(bench.progress, slug, code.source, visible_only=visible_only)
    bench.judge.want()
    await_verdict(bench.progress, key, SOON_SECONDS)
    return _back(slug, "verdict", key, "" if agrees else code.tab)


@router.post("/{slug}/hint")
def hint(bench: Bench, slug: Slug, code: Code, of: Annotated[str, Form()] = "") -> Response:
    """Give the next hint."""
    _, agrees = _save(bench, slug, code)
    next_hint(bench.progress, find(slug))
    return _back(slug, "hints", _own(bench, of), "" if agrees else code.tab)


@router.post("/{slug}/explain")
def explain(
    bench: Bench,
    slug: Slug,
    code: Code,
    of: Annotated[str, Form()],
    question: Annotated[str, Form(max_length=1000)] = "",
) -> Response:
    """Let a model explain a failure."""
    _, agrees = _save(bench, slug, code)
    attempt = find_attempt(bench.progress, of)
    if attempt.slug != slug:
        raise HTTPException(404, "This submission is to another problem.")
    bench.explainer.start(find(slug), attempt, question.strip())
    return _back(slug, "explanation", attempt.key, "" if agrees else code.tab)


@router.post("/{slug}/rate")
def rate(
    bench: Bench,
    slug: Slug,
    code: Code,
    number: Annotated[int, Query(ge=0, lt=2**63)],
    helped: Annotated[bool, Form()],
    of: Annotated[str, Form()] = "",
) -> Response:
    """Keep whether an explanation helped."""
    _, agrees = _save(bench, slug, code)
    bench.explainer.rate(helped, number)
    return _back(slug, "explanation", _own(bench, of), "" if agrees else code.tab)


@router.post("/{slug}/choose")
def choose(
    bench: Bench,
    slug: Slug,
    code: Code,
    copy: Annotated[str, Query()],
    keep: Annotated[bool, Form()],
) -> Response:
    """End a conflict of two tabs: keep a copy for the draft, or drop it."""
    _save(bench, slug, code)
    bench.drafts.choose(slug, copy, copy=keep)
    return _back(slug, "answer")


@router.post("/{slug}/solution")
def ask_for_solution(bench: Bench, slug: Slug) -> Response:
    """Record that the solution is wanted before the problem is solved."""
    find(slug)
    bench.progress.ask_for_solution(slug)
    return RedirectResponse(f"/practise/{slug}/solution", 303)


def _own(bench: Bench, key: str) -> str:
    """Return the key of an attempt if it is one of the user's, else an empty one."""
    try:
        return find_attempt(bench.progress, key).key if key else ""
    except ProblemError:
        return ""
