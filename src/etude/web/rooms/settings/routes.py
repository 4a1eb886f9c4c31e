"""Settings; export, import and deletion of everything that a user has here."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import available_timezones

from fastapi import APIRouter, File, Form, Request, UploadFile
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from etude.app.archive import (
    MOST_ARCHIVE,
    ArchiveError,
    count_records,
    delete_all,
    export_all,
    import_all,
)
from etude.app.papers.syncing import is_automatic, set_automatic
from etude.app.practice import use_timezone
from etude.app.settings import SettingsError
from etude.app.workbench import Workbench
from etude.core.timezone import local_timezone
from etude.web.bench import Bench
from etude.web.pages import render
from etude.web.room import Room

router = APIRouter(prefix="/settings")
ROOM = Room("settings", "Settings", "/settings", [router], Path(__file__).parent)
WORD = "delete"
"""What is typed to confirm a deletion."""


@cache
def _zones() -> list[str]:
    """Return the time zones to choose from: looking for them takes long."""
    return sorted(zone for zone in available_timezones() if "/" in zone or zone == "UTC")


def _page(request: Request, bench: Workbench, status: int = 200, **content: Any) -> HTMLResponse:
    counts = count_records(bench.engine, bench.user)
    shown: dict[str, Any] = {
        "saved": False, "wrong_zone": "", "wrong_file": "", "wrong_word": "",
        "imported": None, "deleted": None,
    }  # fmt: skip
    return render(
        request,
        "settings/index.html",
        status,
        choices=bench.choices.read(),
        automatic=is_automatic(bench.library),
        here=local_timezone(),
        zones=_zones(),
        user=bench.user,
        runs=bench.runs,
        records=sum(counts.values()),
        counts=counts,
        word=WORD,
        **(shown | content),
    )


@router.get("")
def index(request: Request, bench: Bench, saved: bool = False) -> HTMLResponse:
    """Show the settings."""
    return _page(request, bench, saved=saved)


@router.post("")
def change(
    request: Request,
    bench: Bench,
    timezone: Annotated[str, Form(max_length=64)] = "",
    streak: Annotated[bool, Form()] = False,
    automatic: Annotated[bool, Form()] = False,
) -> Response:
    """Keep the settings of the form."""
    try:
        bench.choices.change(streak=streak, timezone=timezone)
    except SettingsError as error:
        return _page(request, bench, 422, wrong_zone=str(error))
    use_timezone(bench.progress)
    if automatic != is_automatic(bench.library):
        set_automatic(bench.library, automatic)
    return RedirectResponse("/settings?saved=true", 303)


@router.get("/export")
def export(bench: Bench) -> Response:
    """Send all records as a zip file."""
    name = f"etude-{datetime.now(UTC).date().isoformat()}.zip"
    return Response(
        export_all(bench.engine, bench.user, bench.runs),
        media_type="application/zip",
        headers={
            "Content-Disposition": f'attachment; filename="{name}"',
            "Content-Security-Policy": "default-src 'none'; sandbox",
        },
    )


@router.post("/import", max_body_size=MOST_ARCHIVE)
def import_file(
    request: Request, bench: Bench, file: Annotated[UploadFile, File()]
) -> HTMLResponse:
    """Add the records of an archive."""
    try:
        done = import_all(bench.engine, bench.user, file.file)
    except ArchiveError as error:
        return _page(request, bench, 422, wrong_file=str(error))
    use_timezone(bench.progress)
    return _page(request, bench, imported=done)


@router.post("/delete")
def delete(
    request: Request, bench: Bench, word: Annotated[str, Form(max_length=40)] = ""
) -> HTMLResponse:
    """Delete all records of the user, who has typed the word for it."""
    if word.strip().lower() != WORD:
        wrong = f"Type {WORD!r} to delete your records; nothing was deleted."
        return _page(request, bench, 422, wrong_word=wrong)
    done = delete_all(bench.engine, bench.user)
    use_timezone(bench.progress)
    bench.begin_day()
    return _page(request, bench, deleted=done)
