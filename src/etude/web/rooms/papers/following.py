"""Saved searches and followed authors, with what is new for them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from etude.app.papers.reading import waiting_news
from etude.core.errors import PapersError
from etude.web.bench import Bench
from etude.web.pages import render
from etude.web.rooms.papers.lists import frame
from etude.web.rooms.papers.view import items

router = APIRouter(prefix="/papers")
MOST_NEW = 20
"""New papers shown of each search or author."""


@router.get("/following")
def following(request: Request, bench: Bench) -> HTMLResponse:
    """Show saved searches and followed authors, and their new papers."""
    return _page(request, bench)


def _page(
    request: Request, bench: Bench, *, wrong: str = "", name: str = "", query: str = ""
) -> HTMLResponse:
    news = waiting_news(bench.library, bench.reader, bench.index)
    new = [
        (
            alert,
            items(bench, bench.library.get_many(alert.ids[:MOST_NEW]), "/papers/following"),
        )
        for alert in news.alerts
    ]
    return render(
        request,
        "papers/following.html",
        422 if wrong else 200,
        new=new,
        problems=news.problems,
        upto=news.upto,
        searches=bench.reader.searches(),
        authors=bench.reader.following(),
        wrong=wrong,
        name=name,
        typed=query,
        **frame(bench),
    )


@router.post("/saved")
def saved(
    request: Request,
    bench: Bench,
    name: Annotated[str, Form(max_length=200)] = "",
    query: Annotated[str, Form(max_length=5000)] = "",
    remove: Annotated[bool, Form()] = False,
) -> Response:
    """Save a search under a name, or delete it."""
    try:
        if remove:
            bench.reader.drop_search(name)
        else:
            bench.index.search(query, most=1)  # a query that cannot be read is told now
            bench.reader.save_search(name, query)
    except PapersError as error:
        return _page(request, bench, wrong=str(error), name=name, query=query)
    return RedirectResponse("/papers/following", 303)


@router.post("/seen")
def seen(bench: Bench, upto: Annotated[int, Form(ge=0, lt=2**63)]) -> Response:
    """Count what was shown as seen; papers that came later stay new."""
    news = waiting_news(bench.library, bench.reader, bench.index)
    if news.upto == upto:
        news.shown()
    return RedirectResponse("/papers/following", 303)
