"""The models on this machine: what is here, pull, quantise, remove."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from etude.app.model_work import work_folder
from etude.app.models import begin_pull, begin_quantizing, list_models, remove_model
from etude.app.workbench import Workbench
from etude.core.errors import ModelError
from etude.web.bench import Bench
from etude.web.events import Source, positions
from etude.web.pages import render
from etude.web.room import Room
from etude.web.rooms.models.topics import open_models

router = APIRouter(prefix="/models")
ROOM = Room(
    "models",
    "Models",
    "/models",
    [router],
    Path(__file__).parent,
    [Source("models", open_models)],
)
Name = Annotated[str, Form(max_length=1000)]


def _page(request: Request, bench: Workbench, status: int = 200, **content: Any) -> HTMLResponse:
    shown: dict[str, Any] = {"wrong": "", "asked": "", "freed": 0}
    at = positions(request, "models")
    shelf = list_models(bench.runs)
    return render(request, "models/index.html", status, shelf=shelf, at=at, **(shown | content))


@router.get("")
def index(
    request: Request, bench: Bench, freed: Annotated[int, Query(ge=0, le=10**15)] = 0
) -> HTMLResponse:
    """List the models, those that are here first."""
    return _page(request, bench, freed=freed)


@router.post("/pull")
def pull(request: Request, bench: Bench, name: Name) -> Response:
    """Start pulling a model."""
    try:
        begin_pull(name.strip())
    except ModelError as error:
        return _page(request, bench, 422, wrong=str(error), asked=name)
    return RedirectResponse("/models", 303)


@router.post("/stop")
def stop(name: Name) -> Response:
    """Stop what is done to a model."""
    work_folder().stop(name)
    return RedirectResponse("/models", 303)


@router.post("/quantize")
def quantize(
    request: Request, bench: Bench, name: Name, kind: Annotated[str, Form(max_length=10)]
) -> Response:
    """Start quantising a model."""
    try:
        begin_quantizing(name, kind, bench.runs)
    except ModelError as error:
        return _page(request, bench, 422, wrong=str(error))
    return RedirectResponse("/models", 303)


@router.post("/remove")
def remove(request: Request, bench: Bench, name: Name) -> Response:
    """Remove a model."""
    try:
        freed = remove_model(name, bench.runs)
    except ModelError as error:
        return _page(request, bench, 409, wrong=str(error))
    return RedirectResponse(f"/models?freed={freed}", 303)
