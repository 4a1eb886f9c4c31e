"""One paper's page, and what a reader does with papers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from etude.app.papers.reading import paper_details
from etude.core.errors import PapersError
from etude.web.bench import Bench
from etude.web.pages import render
from etude.web.rooms.papers.lists import address, frame
from etude.web.rooms.papers.view import Item, items, local

router = APIRouter(prefix="/papers")

Short = Annotated[str, Form(max_length=200)]
Line = Annotated[str, Form(max_length=2000)]
NOTHING_LONGER = 30_000
"""Characters of a note that are read at all; the reader's own limit is told in its words."""


@router.get("/paper/{key:path}")
def paper(request: Request, bench: Bench, key: str) -> HTMLResponse:
    """Show a paper."""
    from etude.papers.authors import followed_among

    item = _item(bench, key)
    following = bench.reader.following()
    row = item.paper.row
    return render(
        request,
        "papers/paper.html",
        item=item,
        row=row,
        authors=[(name, bool(followed_among(following, [name]))) for name in item.card.authors],
        listings=row["listings"],
        tags=bench.reader.tags_of(item.id),
        known_tags=sorted(bench.reader.tags()),
        note=bench.reader.note_of(item.id),
        known=bool(bench.reader.stamp()),
        **frame(bench),
    )


@router.get("/beside/{key:path}")
def beside(request: Request, bench: Bench, key: str) -> HTMLResponse:
    """Show why a paper stands where it does, and similar ones: a page, or a part of the paper's."""
    item = _item(bench, key)
    partly = request.headers.get("hx-request") == "true"
    # They are asked for apart from the page, which asks again while they are computed.
    patience = 5.0
    why = bench.ranking.ask("why", patience, paper=item.id) if bench.reader.stamp() else None
    related = bench.ranking.ask("related", patience, paper=item.id)
    rows = bench.library.get_many(related.value or [])
    return render(
        request,
        "papers/beside_part.html" if partly else "papers/beside.html",
        item=item,
        score=why.value[0] if why is not None and why.value else None,
        why=_strongest(why.value[1]) if why is not None and why.value else [],
        terms=len(why.value[1]) if why is not None and why.value else 0,
        similar=items(bench, rows, _address(item.id)),
        problem=(why.problem if why is not None else "") or related.problem,
        pending=not related.current or (why is not None and not why.current),
        **({} if partly else frame(bench)),
    )


def _strongest(why: list[Any], most: int = 8) -> list[tuple[str, float]]:
    return [(str(word), float(part)) for word, part in why[:most]]


@router.post("/opinion")
def opinion(
    request: Request,
    bench: Bench,
    id: Short,  # noqa: A002 - the field's name
    value: Annotated[Literal["1", "-1", "0"], Form()],
    back: Line = "",
) -> Response:
    """Like or dislike a paper, or take that back."""
    reader = bench.reader
    {"1": reader.like, "-1": reader.dislike, "0": reader.unlike}[value](id)
    if request.headers.get("hx-request") == "true":
        item = _item(bench, id, back=local(back))
        return render(request, "papers/opinion_part.html", item=item)
    return RedirectResponse(local(back) + f"#paper-{id}", 303)


@router.post("/tag")
def tag(
    bench: Bench,
    id: Short,  # noqa: A002
    tag: Short,
    remove: bool = Form(False),
) -> Response:
    """Tag a paper, or remove a tag."""
    if remove:
        bench.reader.untag(id, tag)
    else:
        bench.reader.tag(id, tag)
    return RedirectResponse(f"{_address(id)}#tags", 303)


@router.post("/note")
def note(
    bench: Bench,
    id: Short,  # noqa: A002
    text: Annotated[str, Form(max_length=NOTHING_LONGER)] = "",
) -> Response:
    """Write the note on a paper; an empty one removes it."""
    bench.reader.note(id, text)
    return RedirectResponse(f"{_address(id)}#note", 303)


@router.post("/author")
def author(
    bench: Bench, author: Short, follow: Annotated[bool, Form()], back: Line = ""
) -> Response:
    """Follow an author, or no longer."""
    if follow:
        bench.reader.follow(author)
    else:
        bench.reader.unfollow(author)
    return RedirectResponse(local(back), 303)


def _item(bench: Bench, key: str, back: str | None = None) -> Item:
    try:
        row = paper_details(bench.library, None, key, related=0).paper.row
    except PapersError as error:
        raise HTTPException(404, str(error)) from error
    return items(bench, [row], _address(row["id"]) if back is None else back)[0]


def _address(key: str) -> str:
    return address(f"/papers/paper/{key}")
