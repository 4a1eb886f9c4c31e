"""Papers out and in: files for other programs, and feeds."""

from __future__ import annotations

import hmac
import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, File, Form, HTTPException, Query, Request, UploadFile
from fastapi.responses import HTMLResponse, Response

from etude.app.papers.exchange import Selection, export_papers, import_papers
from etude.core.errors import PapersError
from etude.web.bench import Bench
from etude.web.pages import render
from etude.web.rooms.papers.lists import frame
from etude.web.security import public
from etude.web.session import Sessions

router = APIRouter(prefix="/papers")
feeds_router = APIRouter()
LARGEST_FILE = 64_000_000
"""Bytes of a file to import: some 20,000 papers."""
MEDIA = {
    "bibtex": "application/x-bibtex",
    "csl-json": "application/vnd.citationstyles.csl+json",
    "ris": "application/x-research-info-systems",
    "csv": "text/csv",
    "json": "application/json",
}
Format = Literal["bibtex", "csl-json", "ris", "csv", "json"]


@router.get("/exchange")
def exchange(request: Request, bench: Bench) -> HTMLResponse:
    """Show how papers come in and go out."""
    return _page(request, bench)


def _page(request: Request, bench: Bench, status: int = 200, **content: Any) -> HTMLResponse:
    defaults: dict[str, Any] = {"wrong": "", "imported": None}
    tags = bench.reader.tags()
    opinions = list(bench.reader.opinions().values())
    return render(
        request,
        "papers/exchange.html",
        status,
        selections=[
            ("Liked", opinions.count(1), {"liked": "true"}),
            *((f"#{tag}", len(ids), {"tag": tag}) for tag, ids in sorted(tags.items())),
        ],
        total=bench.library.count(),
        **(defaults | content),
        **frame(bench),
    )


@router.get("/export")
def export(
    bench: Bench,
    form: Annotated[Format, Query(alias="format")] = "bibtex",
    id: Annotated[list[str], Query(max_length=1000)] = [],  # noqa: A002, B006 - FastAPI copies it
    tag: Annotated[str | None, Query(max_length=200)] = None,
    liked: bool = False,
    q: Annotated[str | None, Query(max_length=2000)] = None,
    day: Annotated[str | None, Query(max_length=10)] = None,
    everything: bool = False,
) -> Response:
    """Send papers as a file."""
    from etude.papers.exchange import SUFFIXES

    chosen = Selection(id, tag or None, liked, q or None, day or None, everything)
    made = export_papers(bench.library, bench.reader, chosen, form, index=bench.index)
    name = "everything" if everything else "liked" if liked else "papers"
    return Response(
        made.text.encode(),
        media_type=f"{MEDIA[form]}; charset=utf-8",
        headers={
            "Content-Disposition": f'attachment; filename="{name}{SUFFIXES[form]}"',
            "Content-Security-Policy": "sandbox",
        },
    )


@router.post("/import", max_body_size=LARGEST_FILE)
def import_file(
    request: Request,
    bench: Bench,
    file: Annotated[UploadFile, File()],
    tag: Annotated[str, Form(max_length=200)] = "",
    like: Annotated[bool, Form()] = False,
) -> HTMLResponse:
    """Read a file of papers."""
    from etude.papers.exchange import SUFFIXES

    suffix = Path(file.filename or "").suffix.lower()
    if suffix not in SUFFIXES.values():
        known = ", ".join(dict.fromkeys(SUFFIXES.values()))
        return _page(request, bench, 422, wrong=f"The name of the file must end in {known}.")
    with tempfile.TemporaryDirectory(prefix="etude-import-") as folder:
        # Named by its suffix alone: a person's file name is no path here.
        place = Path(folder) / f"papers{suffix}"
        with place.open("wb") as target:
            while part := file.file.read(1 << 20):
                target.write(part)
        try:
            done = import_papers(
                bench.library, bench.reader, place, tag=tag.strip() or None, like=like
            )
        except PapersError as error:
            return _page(request, bench, 422, wrong=str(error).replace(f"{folder}/", ""))
    bench.syncer.start(fetch=False)
    return _page(request, bench, imported=done)


@router.get("/feeds")
def feeds(request: Request, bench: Bench) -> HTMLResponse:
    """Show the feeds, with addresses that feed readers on this machine can use."""
    sessions: Sessions = request.app.state.sessions
    base = f"{request.url.scheme}://{request.headers['host']}/feeds/{sessions.secret('feeds')}"
    return render(
        request, "papers/feeds.html", feeds=bench.feeds.names(), base=base, **frame(bench)
    )


@feeds_router.get("/feeds/{secret}/{path:path}")
@public
def feed(request: Request, bench: Bench, secret: str, path: str) -> Response:
    """Send a feed to whoever knows its address: feed readers have no session."""
    from email.utils import format_datetime

    from etude.papers.feed_bodies import FRESH, is_current

    sessions: Sessions = request.app.state.sessions
    if not hmac.compare_digest(secret.encode(), sessions.secret("feeds").encode()):
        raise HTTPException(404)
    root = f"{request.url.scheme}://{request.headers['host']}"
    body = bench.feeds.body(path, f"{root}/papers", f"{root}{request.url.path}")
    if body is None:
        raise HTTPException(404)
    tag = f'"{body.tag}"'
    headers = {
        "ETag": tag,
        "Last-Modified": format_datetime(body.changed, usegmt=True),
        "Cache-Control": f"private, max-age={FRESH:.0f}",
    }
    asked = request.headers
    if is_current(body, tag, asked.get("if-none-match"), asked.get("if-modified-since")):
        return Response(status_code=304, headers=headers)
    return Response(body.content, media_type=body.media_type, headers=headers)
