"""How collecting goes: the last sync, the next one, failures, and the switch."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from etude.app.papers.syncing import is_automatic, set_automatic, sync_state
from etude.web.bench import Bench
from etude.web.events import Step
from etude.web.pages import render
from etude.web.rooms.papers.lists import frame, papers_position
from etude.web.rooms.papers.view import local

if TYPE_CHECKING:
    from etude.app.workbench import Workbench

router = APIRouter(prefix="/papers")


@router.get("/health")
def health(request: Request, bench: Bench) -> HTMLResponse:
    """Show how collecting goes."""
    from etude.papers.health import health as state_of

    now = datetime.now(UTC)
    return render(
        request,
        "papers/health.html",
        health=state_of(bench.library, bench.settings(), now),
        state=sync_state(),
        automatic=is_automatic(bench.library),
        due=bench.syncer.due(),
        now=now,
        **frame(bench),
    )


@router.post("/sync")
def sync(bench: Bench, back: Annotated[str, Form(max_length=2000)] = "") -> Response:
    """Fetch papers now."""
    bench.syncer.start()
    return RedirectResponse(local(back), 303)


@router.post("/automatic")
def automatic(bench: Bench, on: Annotated[bool, Form()]) -> Response:
    """Let papers be fetched by themselves, or not."""
    set_automatic(bench.library, on)
    return RedirectResponse("/papers/health", 303)


class PapersTopic:
    """The papers: a step says only that a sync moved, papers came, or an order was computed."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench

    def position(self) -> str:
        """Return a text that changes with any of them."""
        return papers_position(self._bench)

    def after(self, position: str) -> Sequence[Step]:
        """Return one step if anything has changed."""
        now = self.position()
        return [] if now == position else [Step(now, None)]


def open_papers(bench: Workbench, which: str) -> PapersTopic:
    """Return the topic `papers`."""
    del which
    return PapersTopic(bench)
