"""One run: its state, curves, log, predictions and files, and what can be done with it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Form, HTTPException, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from etude.app import drafts, jobs, search
from etude.app.conversing import why_not
from etude.app.run_exports import run_exports
from etude.app.run_news import run_named
from etude.app.run_queue import read_queue
from etude.app.run_series import read_series
from etude.app.runs import facts_of, size_of
from etude.core.errors import EtudeError, RunError
from etude.core.machine import disk_free
from etude.tuning.runs.folder import RunFolder
from etude.tuning.runs.states import ALIVE, RESUMABLE
from etude.web.bench import Bench
from etude.web.events import positions
from etude.web.pages import render
from etude.web.rooms.lab.curves import run_curves
from etude.web.rooms.lab.predictions import predictions_of

router = APIRouter(prefix="/lab/runs")

REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data:"
)
"""Of a run's report, which is one file with its own script: it cannot reach the app."""


def run_of(bench: Bench, name: str) -> RunFolder:
    """Return the run of this name.

    Raises:
        HTTPException: there is none.
    """
    try:
        return RunFolder(run_named(bench.runs, name))
    except RunError as error:
        raise HTTPException(404, f"{str(error)[:1].upper()}{str(error)[1:]}.") from None


@router.get("/{name}")
def show(
    request: Request,
    bench: Bench,
    name: str,
    order: Annotated[str, Query(pattern="^(worst|first)$")] = "worst",
) -> HTMLResponse:
    """Show a run."""
    return run_page(request, bench, run_of(bench, name), order)


def run_page(
    request: Request, bench: Bench, run: RunFolder, order: str = "worst", wrong: str = ""
) -> HTMLResponse:
    """Return the page of a run."""
    log_topic, work_topic, trials_topic = (
        f"{family}/{run.name}" for family in ("log", "work", "trials")
    )
    at = positions(request, "runs", log_topic, work_topic, trials_topic)
    facts = facts_of(run, read_queue(bench.runs))
    broken = facts.damaged or ""
    curves, series, predictions = [], None, None
    searched = None
    try:
        searched = search.overview(run) if run.is_search else None
        series = read_series(run)
        curves = run_curves(series)
        predictions = predictions_of(run, worst_first=order == "worst")
    except (RunError, ValueError, TypeError, KeyError) as error:
        broken = broken or str(error)
    try:
        recipe = run.recipe.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        recipe = ""
    return render(
        request,
        "lab/run.html",
        422 if wrong else 200,
        run=run,
        facts=facts,
        broken=broken,
        series=series,
        curves=curves,
        predictions=predictions,
        order=order,
        log=jobs.log_tail(run, 16_000),
        recipe=recipe,
        wrong=wrong,
        at=at,
        log_topic=log_topic,
        has_log=run.log.is_file() or run.job.is_file(),
        is_alive=facts.state in ALIVE,
        can_resume=facts.state in RESUMABLE and not run.is_cross_validation,
        searched=searched,
        trials_topic=trials_topic,
        trials=search.read_search(run).settings.trials if run.is_search and not broken else 0,
        work_at=at.get(work_topic, ""),
        exports=[] if run.has_trials else run_exports(run),
        quantised=facts.figures.get("method") == "qlora",
        free=disk_free(run.path),
        why_not=why_not(run),
        has_adapter=run.adapter.is_dir(),
        has_report=run.report.is_file(),
        size=size_of(run),
    )


@router.get("/{name}/series")
def series(
    bench: Bench, name: str, cursor: Annotated[str, Query(max_length=100)] = ""
) -> dict[str, Any]:
    """Return the curves, or what has been added to them."""
    return read_series(run_of(bench, name), cursor or None).as_json()


@router.get("/{name}/report")
def report(bench: Bench, name: str) -> Response:
    """Send the report, shut off from the app."""
    run = run_of(bench, name)
    if not run.report.is_file():
        raise HTTPException(404, "This run has no report yet.")
    headers = {"Content-Security-Policy": REPORT_POLICY}
    return HTMLResponse(run.report.read_bytes(), headers=headers)


@router.post("/{name}/stop")
def stop(
    request: Request, bench: Bench, name: str, now: Annotated[bool, Form()] = False
) -> Response:
    """Stop the run, or take it out of the queue."""
    run = run_of(bench, name)
    try:
        jobs.stop_job(str(run.path), bench.runs, now=now)
    except EtudeError as error:
        return run_page(request, bench, run, wrong=str(error))
    return _back(name)


@router.post("/{name}/resume")
def resume(
    request: Request,
    bench: Bench,
    name: str,
    trials: Annotated[int | None, Form(ge=1, le=100_000)] = None,
) -> Response:
    """Put the run, or the search, into the queue again."""
    run = run_of(bench, name)
    try:
        changed = {"trials": trials} if trials else {}
        jobs.resume_job(str(run.path), bench.runs, search=changed)
        jobs.advance(bench.runs)
    except EtudeError as error:
        return run_page(request, bench, run, wrong=str(error))
    return _back(name)


@router.post("/{name}/clone")
def clone(request: Request, bench: Bench, name: str) -> Response:
    """Make a draft of the run's recipe, to be changed and started."""
    from etude.app.recipe_form import recipe_text

    run = run_of(bench, name)
    try:
        plan = jobs.plan_clone(str(run.path), bench.runs)
        draft = drafts.draft_of_text(recipe_text(plan.recipe))
    except EtudeError as error:
        return run_page(request, bench, run, wrong=str(error))
    draft.look(bench.runs)
    return RedirectResponse(f"/lab/new/{draft.id}", 303)


@router.post("/{name}/delete")
def delete(
    request: Request, bench: Bench, name: str, sure: Annotated[bool, Form()] = False
) -> Response:
    """Delete the run's folder."""
    run = run_of(bench, name)
    if not sure:
        return run_page(
            request, bench, run, wrong="Tick the box to delete it: it cannot be undone."
        )
    try:
        jobs.remove_job(str(run.path), bench.runs)
    except EtudeError as error:
        return run_page(request, bench, run, wrong=str(error))
    return RedirectResponse("/lab", 303)


def _back(name: str) -> Response:
    return RedirectResponse(f"/lab/runs/{name}", 303)
