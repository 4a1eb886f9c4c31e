"""The list of problems, and a problem's page."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import HTMLResponse

from etude.app.practice import list_problems
from etude.web.bench import Bench
from etude.web.pages import render
from etude.web.room import Room

router = APIRouter(prefix="/practise")
ROOM = Room("practise", "Practise", "/practise", [router], Path(__file__).parent)


@router.get("")
def index(request: Request, bench: Bench) -> HTMLResponse:
    """List all problems, by collection."""
    return render(request, "practise/index.html", problems=list_problems(bench.progress))


@router.get("/{slug}")
def problem(request: Request, bench: Bench, slug: str) -> HTMLResponse:
    """Show a problem's statement and its first code."""
    found = {one.problem.slug: one for one in list_problems(bench.progress)}
    if slug not in found:
        raise HTTPException(404, "There is no problem of this name; it may have been removed.")
    return render(request, "practise/problem.html", one=found[slug], problem=found[slug].problem)
