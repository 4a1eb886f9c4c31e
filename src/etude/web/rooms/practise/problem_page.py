"""What a problem's page shows: the statement, the code, and the verdict on one attempt."""

from __future__ import annotations

import secrets
from typing import Annotated

from fastapi import HTTPException, Path, Request
from fastapi.responses import HTMLResponse

from etude.app.attempts import Attempt, find_attempt, latest_attempt, read_verdict
from etude.app.practice_list import collection_title
from etude.app.workbench import Workbench
from etude.core.errors import ProblemError
from etude.practice.judge_process import running_judges
from etude.practice.problem import Problem, find_problem
from etude.practice.queue import Queue
from etude.web.events import positions
from etude.web.pages import render

Slug = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=80)]


def find(slug: str) -> Problem:
    """Return a problem.

    Raises:
        HTTPException: there is none of this name.
    """
    try:
        return find_problem(slug)
    except ProblemError:
        raise HTTPException(
            404, "There is no problem of this name; it may have been removed."
        ) from None


def attempt_shown(bench: Workbench, slug: str, key: str) -> Attempt | None:
    """Return the attempt that is named, or the last one.

    Raises:
        HTTPException: the user has none of this key for this problem.
    """
    if not key:
        return latest_attempt(bench.progress, slug)
    try:
        attempt = find_attempt(bench.progress, key)
    except ProblemError as error:
        raise HTTPException(404, f"{error}.".capitalize()) from None
    if attempt.slug != slug:
        raise HTTPException(404, "This submission is to another problem.")
    return attempt


def problem_page(
    request: Request, bench: Workbench, problem: Problem, attempt: Attempt | None, tab: str = ""
) -> HTMLResponse:
    """Return the page of a problem.

    Args:
        request: that it answers.
        bench: the user's.
        problem: that is shown.
        attempt: whose verdict is shown.
        tab: whose code is shown if it is kept beside the draft; empty is a new one.
    """
    slug, at = problem.slug, dict[str, str]()
    if attempt is not None:
        at = positions(request, f"submission/{attempt.key}", f"explanation/{attempt.key}")
        if not attempt.done:  # what is shown is read after its position, so no verdict is missed
            attempt = find_attempt(bench.progress, attempt.key)
    draft, copies = bench.drafts.read(slug), bench.drafts.copies(slug)
    mine = next((copy for copy in copies if copy.tab == tab), draft)
    hints = problem.hints
    failed = attempt is not None and attempt.verdict is not None and not attempt.verdict.accepted
    return render(
        request,
        "practise/problem.html",
        problem=problem,
        collection=collection_title(problem.collection),
        solved=slug in bench.progress.solved(),
        code=mine.source if mine else problem.starter,
        revision=mine.revision if mine else 0,
        draft=draft,
        copies=copies,
        tab=(mine and mine.tab) or secrets.token_hex(8),
        attempt=attempt,
        at=at,
        reading=read_verdict(problem, attempt) if attempt else None,
        hints=hints[: bench.progress.hints_taken(slug)],
        hints_total=len(hints),
        judges=running_judges(),
        judge_failure=bench.judge.failure,
        waiting=Queue(bench.engine).waiting(),
        model=bench.explainer.endpoint(),
        growing=bench.explainer.of(attempt.key) if attempt and failed else None,
        explained=bench.explainer.kept(attempt.key) if attempt and failed else None,
    )
