"""The models on this machine."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from etude.app.models import list_models
from etude.web.pages import render
from etude.web.room import Room

router = APIRouter(prefix="/models")
ROOM = Room("models", "Models", "/models", [router], Path(__file__).parent)


@router.get("")
def index(request: Request) -> HTMLResponse:
    """List the models that have an alias, those that are here first."""
    return render(request, "models/index.html", shelf=list_models())
