"""Searching for a better recipe: what is varied, and for how long; then a job as any other."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from etude.app import drafts, jobs
from etude.app.search_form import WHOLE, SearchForm, Typed, read_search_form
from etude.core.errors import DataError, EtudeError
from etude.tuning.config.recipe import Recipe
from etude.web.bench import Bench
from etude.web.pages import render
from etude.web.rooms.lab.run_routes import run_of, run_page

router = APIRouter(prefix="/lab")
COSTS = {"saved_bytes": "size on disk", "peak_rss": "memory", "train_seconds": "training time"}
MOST_TYPED = 1000
"""Characters of a field."""


@router.get("/new/{draft}/search")
def show(request: Request, draft: str) -> HTMLResponse:
    """Show a search around a draft's recipe: as suggested, or as the address says."""
    found, recipe = _found(draft)
    query = request.query_params
    typed = {key: query.getlist(key) for key in query} if "trials" in query else None
    return _page(request, found, recipe, read_search_form(recipe, typed))


def _found(name: str) -> tuple[drafts.Draft, Recipe]:
    from etude.app.recipe_form import read_recipe
    from etude.tuning.tasks.detect import resolved

    try:
        draft = drafts.find_draft(name)
    except DataError as error:
        raise HTTPException(404, _sentence(error)) from None
    try:
        recipe = read_recipe(draft.yaml)
        recipe.require_data()
        return draft, resolved(recipe)[0]
    except EtudeError as error:
        raise HTTPException(409, f"Put the recipe right first: {error}") from None


def _sentence(error: Exception) -> str:
    return f"{str(error)[:1].upper()}{str(error)[1:]}."


def _page(
    request: Request,
    draft: drafts.Draft,
    recipe: Recipe,
    form: SearchForm,
    *,
    wrong: str = "",
    refused: bool = False,
) -> HTMLResponse:
    return render(
        request,
        "lab/search.html",
        422 if refused else 200,
        draft=draft,
        recipe=recipe,
        form=form,
        wrong=wrong or form.errors.get(WHOLE, ""),
        costs=COSTS,
    )


async def typed_fields(request: Request) -> Typed:
    """Return all values of a form's fields, by name."""
    form = await request.form()
    return {key: [str(one)[:MOST_TYPED] for one in form.getlist(key)] for key in form}


@router.post("/new/{draft}/search")
def decide(
    request: Request, bench: Bench, draft: str, typed: Annotated[Typed, Depends(typed_fields)]
) -> Response:
    """Start the search, or show what would be started."""
    found, recipe = _found(draft)
    if "start" not in typed:
        said = [(k, v) for k, all_ in typed.items() if k != "csrf" for v in all_]
        return RedirectResponse(f"/lab/new/{draft}/search?{urlencode(said)}#equivalent", 303)
    form = read_search_form(recipe, typed)
    if form.space is None:
        return _page(request, found, recipe, form, refused=True)
    try:
        run = found.search(form.space, bench.runs)
    except EtudeError as error:
        return _page(request, found, recipe, form, wrong=_sentence(error), refused=True)
    return RedirectResponse(f"/lab/runs/{run.name}", 303)


@router.post("/runs/{name}/search")
def around(request: Request, bench: Bench, name: str) -> Response:
    """Begin a search around a run's recipe."""
    from etude.app.recipe_form import recipe_text

    run = run_of(bench, name)
    try:
        plan = jobs.plan_clone(str(run.path), bench.runs)
        draft = drafts.draft_of_text(recipe_text(plan.recipe))
    except EtudeError as error:
        return run_page(request, bench, run, wrong=str(error))
    return RedirectResponse(f"/lab/new/{draft.id}/search", 303)
