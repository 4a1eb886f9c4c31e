"""Lists of papers: a day, a search, liked ones, a tag, notes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import HTMLResponse

from etude.app.papers.opening import tagged
from etude.app.papers.reading import Order, rows_of_day, search_papers, why_empty
from etude.app.papers.syncing import SyncState, is_automatic, sync_stamp, sync_state
from etude.core.errors import PapersError
from etude.web.bench import Bench
from etude.web.pages import render
from etude.web.rooms.papers.view import Item, items

if TYPE_CHECKING:
    from etude.app.workbench import Workbench

router = APIRouter(prefix="/papers")
PAGE = 30
OF_TOPIC = 4
"""Papers shown of each topic of a day; a link leads to the others."""
LARGE = 3
"""Papers at the top of a list that are larger than the others."""

DayOrder = Literal["you", "newest", "topics"]
Number = Annotated[int, Query(ge=1, le=10_000)]
Text = Annotated[str, Query(max_length=2000)]


@dataclass(frozen=True)
class Group:
    """A part of a list."""

    title: str
    items: list[Item]
    """The first of its papers."""
    count: int
    """All of them."""


@dataclass(frozen=True)
class DayOf:
    """A day's papers in the order asked for."""

    ordered: list[dict[str, Any]]
    why: dict[str, Any]
    groups: list[tuple[str, list[str]]]
    """Name and ids of each topic; empty unless they were asked for."""
    pending: bool
    """Whether a better order is being computed."""
    problem: str


@router.get("")
def index(
    request: Request,
    bench: Bench,
    day: Text = "",
    shelf: Text = "",
    order: DayOrder = "you",
    replaced: bool = False,
    topic: Text | None = None,
    page: Number = 1,
) -> HTMLResponse:
    """Show the papers of a day: the last one with papers, unless another is asked for."""
    settings = bench.settings()
    if shelf and shelf not in settings.shelves:
        raise HTTPException(404, f"There is no shelf {shelf!r}.")
    total = bench.library.count()
    if not total or (not day and bench.library.last_day() is None):
        return render(request, "papers/none.html", total=total, **frame(bench))
    chosen, rows = rows_of_day(
        bench.library, settings, day=day or None, shelf=shelf or None, replaced=replaced
    )
    known = bool(bench.reader.stamp())
    position = papers_position(bench)
    found = _ordered(bench, rows, chosen, shelf, order, replaced=replaced, known=known)
    parts = {
        "day": day,
        "shelf": shelf,
        "order": "" if order == "you" else order,
        "replaced": int(replaced),
    }
    back = address("/papers", **parts, page=page, topic=topic)
    ordered, groups = found.ordered, found.groups
    if groups and topic is not None:
        ids = dict(groups).get(topic, [])
        ordered, groups = bench.library.get_many(ids), []
    elif groups:
        ordered = []
    first = (page - 1) * PAGE
    before, after = bench.library.days_beside(chosen)
    return render(
        request,
        "papers/day.html",
        day=date.fromisoformat(chosen),
        before=before and date.fromisoformat(before),
        after=after and date.fromisoformat(after),
        count=len(rows),
        groups=[
            Group(
                name,
                items(bench, bench.library.get_many(ids[:OF_TOPIC]), back, found.why),
                len(ids),
            )
            for name, ids in groups
        ],
        items=items(bench, ordered[first : first + PAGE], back, found.why),
        why_empty="" if rows else why_empty(chosen),
        page=page,
        pages=-(-len(ordered) // PAGE),
        large=LARGE if page == 1 and order != "topics" else 0,
        topic=topic,
        shelf=shelf,
        order=order,
        replaced=replaced,
        known=known,
        pending=found.pending,
        position=position,
        problem=found.problem,
        here=Here("/papers", {**parts, "topic": topic}),
        **frame(bench),
    )


def _ordered(
    bench: Workbench,
    rows: list[dict[str, Any]],
    day: str,
    shelf: str,
    order: DayOrder,
    *,
    replaced: bool,
    known: bool,
) -> DayOf:
    from etude.papers.ranking.shelf_order import by_shelf

    plain = rows if order == "newest" else by_shelf(rows, bench.settings().shelf_of)
    if not rows or order == "newest" or (order == "you" and not known):
        return DayOf(plain, {}, [], pending=False, problem="")
    which: dict[str, Any] = {"day": day, "shelf": shelf or None, "replaced": replaced}
    answer = bench.ranking.ask("day" if order == "you" else "topics", **which)
    by_id = {row["id"]: row for row in rows}
    groups: list[tuple[str, list[str]]] = []
    pairs: list[Any] = []
    if order == "topics":
        for name, papers in answer.value or ():
            pairs += papers
            groups.append((name, [key for key, _ in papers if key in by_id]))
    else:
        pairs = answer.value or []
    ranked = [by_id[key] for key, _ in pairs if key in by_id]
    # Papers that came after the order was computed are not lost.
    ranked += [row for row in plain if row["id"] not in {key for key, _ in pairs}]
    return DayOf(ranked, dict(pairs), groups, not answer.current, answer.problem)


@router.get("/search")
def search(
    request: Request,
    bench: Bench,
    q: Text = "",
    order: Literal["newest", "relevance"] = "newest",
    page: Number = 1,
) -> HTMLResponse:
    """Show what a search finds; only the results, where they replace earlier ones."""
    from etude.papers.search.snippets import Marker

    query, back = q.strip(), address("/papers/search", q=q, order=order, page=page)
    content: dict[str, Any] = {"query": q, "order": order, "page": page, "wrong": ""}
    found, shown = None, []
    if query:
        try:
            found = search_papers(
                bench.library,
                bench.reader,
                query,
                order=_search_order(order),
                limit=PAGE,
                page=page,
                index=bench.index,
            )
            rows = [paper.row for paper in found.papers]
            shown = items(bench, rows, back, marker=Marker(query))
        except PapersError as error:
            content["wrong"] = str(error)
    content |= {
        "found": found,
        "items": shown,
        "pages": -(-found.total // PAGE) if found else 0,
        "here": Here("/papers/search", {"q": q, "order": "" if order == "newest" else order}),
        "behind": bench.index.revision() < bench.library.revision(),
    }
    partly = request.headers.get("hx-request") == "true"
    template = "papers/found.html" if partly else "papers/search.html"
    around = {} if partly else frame(bench)
    return render(request, template, **(around | content))


def _search_order(order: Literal["newest", "relevance"]) -> Order:
    return order


@router.get("/liked")
def liked(request: Request, bench: Bench, page: Number = 1) -> HTMLResponse:
    """Show the papers that the reader liked, the last one first."""
    keys = [key for key, value in reversed(bench.reader.opinions().items()) if value > 0]
    return _listed(
        request,
        bench,
        keys,
        page,
        "/papers/liked",
        title="Liked",
        lede="Papers that you liked, the last one first. They decide what comes first on each day.",
        none="Nothing liked yet. Three likes are enough to order each day's papers for you.",
        export={"liked": "true"},
    )


@router.get("/noted")
def noted(request: Request, bench: Bench, page: Number = 1) -> HTMLResponse:
    """Show the papers with notes, the last written first."""
    notes = bench.reader.notes()
    return _listed(
        request,
        bench,
        list(notes),
        page,
        "/papers/noted",
        title="Notes",
        lede="Papers on which you wrote a note, the last written first.",
        none="No notes yet. Each paper's page has a place for one.",
        notes=notes,
    )


@router.get("/tagged")
def tagged_papers(request: Request, bench: Bench, tag: Text = "", page: Number = 1) -> HTMLResponse:
    """Show the papers with a tag."""
    try:
        keys = tagged(bench.reader, tag)
    except PapersError as error:
        raise HTTPException(404, str(error)) from error
    return _listed(
        request,
        bench,
        keys,
        page,
        "/papers/tagged",
        title=f"Tagged {tag}",
        lede="Papers that you gave this tag, the last one first.",
        none="",
        export={"tag": tag},
        here={"tag": tag},
    )


@router.get("/tags")
def tags(request: Request, bench: Bench) -> HTMLResponse:
    """Show all tags."""
    found = sorted((tag, len(ids)) for tag, ids in bench.reader.tags().items())
    opinions = list(bench.reader.opinions().values())
    return render(
        request,
        "papers/tags.html",
        tags=found,
        liked=opinions.count(1),
        noted=len(bench.reader.notes()),
        **frame(bench),
    )


def _listed(
    request: Request,
    bench: Workbench,
    keys: list[str],
    page: int,
    path: str,
    *,
    here: dict[str, Any] | None = None,
    export: dict[str, Any] | None = None,
    notes: dict[str, str] | None = None,
    **content: Any,
) -> HTMLResponse:
    first = (page - 1) * PAGE
    rows = bench.library.get_many(keys[first : first + PAGE])
    back = address(path, **(here or {}), page=page)
    return render(
        request,
        "papers/list.html",
        items=items(bench, rows, back),
        count=len(keys),
        page=page,
        pages=-(-len(keys) // PAGE),
        here=Here(path, here or {}),
        export=export,
        notes=notes or {},
        **content,
        **frame(bench),
    )


@dataclass(frozen=True)
class Here:
    """The address of a list, from which those of its neighbours are made."""

    path: str
    parts: dict[str, Any]

    def to(self, name: str, value: Any) -> str:
        """Return the address with another value of one part; a list begins at its first page."""
        parts = {"page": 1, **self.parts}
        if name != "page":
            parts.pop("topic", None)  # another day has other topics
        return address(self.path, **(parts | {name: value}))


def frame(bench: Workbench, query: str = "") -> dict[str, Any]:
    """Return what every page of the room shows around its own part."""
    from etude.papers.attribution import NOT_ARXIV, THANKS

    return {
        "shelves": bench.settings().shelves,
        "query": query,
        "thanks": f"{THANKS} {NOT_ARXIV}",
        "sync_now": lambda: SyncNow.of(bench),
    }


@dataclass(frozen=True)
class SyncNow:
    """How collecting is, in this machine's time."""

    state: SyncState | None
    running: bool
    began: str
    ended: str
    last: str
    """When arXiv was last read by any program; empty if never."""
    automatic: bool
    due: str
    due_later: bool
    position: str
    """Of the topic `papers`, before all of this was read."""

    @classmethod
    def of(cls, bench: Workbench) -> SyncNow:
        """Look."""
        position = papers_position(bench)
        state, due = sync_state(), bench.syncer.due()
        run = bench.library.mark("sync:run")
        return cls(
            state,
            bench.syncer.running(),
            _clock(state.began) if state else "",
            _clock(state.ended) if state and state.ended else "",
            _clock(run["ended"]) if run else "",
            is_automatic(bench.library),
            due.astimezone().strftime("%A, %-d %B, %H:%M"),
            due > datetime.now(UTC),
            position,
        )


def papers_position(bench: Workbench) -> str:
    """Return a text that changes when a sync moves, papers come, or an order was computed."""
    return f"{sync_stamp()}.{bench.library.revision()}.{bench.ranking.answered}"


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%A, %-d %B, %H:%M")


def address(path: str, **query: Any) -> str:
    """Return a path with the parts of a query that say something."""
    # An empty topic is that of the papers in no other one.
    said = {
        name: value
        for name, value in query.items()
        if value not in ("", 0, None) or (name, value) == ("topic", "")
    }
    if said.get("page") == 1:
        del said["page"]
    return f"{path}?{urlencode(said)}" if said else path
