"""The stream of news: one server-sent stream for all topics that a browser follows.

A topic is a place that changes: the list of runs (`runs`), the metrics of one (`run/NAME`). It has
a position, a short text that comes from a file or a row (a byte offset, a number), and returns what
happened after any earlier position. So nothing is remembered here: a browser that was away, and a
server that was restarted, go on where they were.

Each event says from which position to which it leads. A page applies it if it stands at the first;
otherwise it asks `/events/after` for what it lacks, so nothing is shown twice or left out. A
topic's first event says only where it stands.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from anyio import to_thread
from fastapi import APIRouter, Depends, Header, HTTPException, Query, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent

from etude.core.errors import EtudeError

if TYPE_CHECKING:
    from etude.app.workbench import Workbench

POLL_SECONDS = 0.5
RETRY_MS = 3000
MOST_TOPICS = 256
_SUBSCRIPTION = re.compile(r"([a-z]+(?:/[\w.+-]{1,200})?)(?:@([\w.:-]{0,100}))?")

router = APIRouter()


@dataclass(frozen=True)
class Step:
    """What happened between two positions of a topic."""

    position: str
    """After it."""
    data: Any
    """Plain data."""


class Topic(Protocol):
    """A place that changes. Its methods are called in threads, and may read files."""

    def position(self) -> str:
        """Return where it stands; called often, so cheap."""
        ...

    def after(self, position: str) -> Sequence[Step]:
        """Return what happened after a position; `""` is the beginning."""
        ...


@dataclass(frozen=True)
class Source:
    """A family of topics: `name`, or `name/WHICH`."""

    name: str
    open: Callable[[Workbench, str], Topic]
    """Returns the topic; the second argument is WHICH, or empty. Raises EtudeError if there is
    none."""


@dataclass
class _Watched:
    topic: Topic
    position: str
    followers: int = 0


class Hub:
    """Watches topics that somebody follows, once for all who do.

    Args:
        bench: what topics read from.
        sources: families of topics.
    """

    def __init__(self, bench: Workbench, sources: Sequence[Source]) -> None:
        self._bench, self._sources = bench, {source.name: source for source in sources}
        self.start()

    def start(self) -> None:
        """Begin in the event loop that the app runs in."""
        self._watched: dict[str, _Watched] = {}
        self._news, self._wanted = asyncio.Event(), asyncio.Event()
        self._closed = False

    def open(self, name: str) -> Topic:
        """Return a topic.

        Raises:
            EtudeError: there is none of this name.
        """
        family, _, which = name.partition("/")
        if family not in self._sources:
            raise EtudeError(f"there is no topic {family!r}")
        return self._sources[family].open(self._bench, which)

    async def watch(self) -> None:
        """Look at the topics again and again, until cancelled."""
        while True:
            await self._wanted.wait()
            await asyncio.sleep(POLL_SECONDS)
            found = await to_thread.run_sync(self._positions, dict(self._watched))
            moved = False
            for name, position in found.items():
                watched = self._watched.get(name)
                if watched is not None and watched.position != position:
                    watched.position, moved = position, True
            if moved:
                self._wake()

    def close(self) -> None:
        """End all streams; called when the server stops. May be called from a signal handler."""
        self._closed = True
        self._wake()

    async def follow(self, positions: dict[str, str | None]) -> AsyncIterator[ServerSentEvent]:
        """Yield what happens to some topics.

        Args:
            positions: of each topic; None is where it stands now.
        """
        yield ServerSentEvent(comment="news", retry=RETRY_MS)
        at: dict[str, str] = {}
        try:
            for name, position in positions.items():
                try:
                    watched = await self._begin(name)
                except EtudeError as error:
                    yield ServerSentEvent(data={"topic": name, "gone": str(error)})
                    continue
                at[name] = watched.position if position is None else position
                if position is None:
                    # A page asked where the topic stands when the connection was there, which is
                    # before it is watched: what happened in between is in neither answer.
                    begun = {"topic": name, "to": watched.position}
                    yield ServerSentEvent(data=begun, id=joined(at))
            while not self._closed:
                news = self._news
                for name in list(at):
                    if at[name] == self._watched[name].position:
                        continue
                    async for event in self._steps(name, at):
                        yield event
                if not self._closed:
                    await news.wait()
        finally:
            for name in at:
                self._end(name)

    async def _steps(self, name: str, at: dict[str, str]) -> AsyncIterator[ServerSentEvent]:
        watched = self._watched[name]
        try:
            steps = await to_thread.run_sync(watched.topic.after, at[name])
        except (EtudeError, OSError) as error:
            # Where it stands is left behind, or the same failure would come again at once.
            at[name] = watched.position
            yield ServerSentEvent(data={"topic": name, "broken": str(error)})
            return
        for step in steps:
            data = {"topic": name, "from": at[name], "to": step.position, "data": step.data}
            at[name] = step.position
            yield ServerSentEvent(data=data, id=joined(at))

    async def _begin(self, name: str) -> _Watched:
        if name not in self._watched:
            topic = await to_thread.run_sync(self.open, name)
            position = await to_thread.run_sync(topic.position)
            self._watched.setdefault(name, _Watched(topic, position))
        watched = self._watched[name]
        watched.followers += 1
        self._wanted.set()
        return watched

    def _end(self, name: str) -> None:
        self._watched[name].followers -= 1
        if not self._watched[name].followers:
            del self._watched[name]
        if not self._watched:
            self._wanted.clear()

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    @staticmethod
    def _positions(watched: dict[str, _Watched]) -> dict[str, str]:
        found: dict[str, str] = {}
        for name, one in watched.items():
            try:
                found[name] = one.topic.position()
            except (EtudeError, OSError) as error:
                found[name] = f"failed.{type(error).__name__}"
        return found


def positions(request: Request, *topics: str) -> dict[str, str]:
    """Return where topics stand: asked for before what a page shows of them is read.

    A page that names them (`at` of `<etude-live>`) misses nothing that happens while it is written
    and sent. A topic that is not there is left out.
    """
    hub: Hub = request.app.state.hub
    found: dict[str, str] = {}
    for name in topics:
        with suppress(EtudeError, OSError):
            found[name] = hub.open(name).position()
    return found


def joined(positions: dict[str, str]) -> str:
    """Return the positions of several topics as one text."""
    return ",".join(f"{name}@{position}" for name, position in positions.items())


def parsed(since: str) -> dict[str, str | None]:
    """Read `topic` (from now on) or `topic@position`, several with commas between them.

    Raises:
        HTTPException: it is malformed.
    """
    positions: dict[str, str | None] = {}
    for one in filter(None, since.split(",")):
        match = _SUBSCRIPTION.fullmatch(one)
        if match is None or len(positions) == MOST_TOPICS:
            raise HTTPException(400, "since: topics with positions, such as runs@12,run/NAME@0")
        positions[match[1]] = match[2]
    return positions


def _wanted(
    since: Annotated[str, Query(max_length=20_000)] = "",
    last_event_id: Annotated[str, Header(max_length=20_000)] = "",
) -> dict[str, str | None]:
    return parsed(since) | parsed(last_event_id)


# What is wrong with a request is found before the stream begins, and so has a status of its own.
@router.get("/events", response_class=EventSourceResponse)
async def stream(
    request: Request, positions: Annotated[dict[str, str | None], Depends(_wanted)]
) -> AsyncIterator[ServerSentEvent]:
    """Stream what happens; a browser that reconnects says itself what it had last."""
    async for event in request.app.state.hub.follow(positions):
        yield event


@router.get("/events/after")
def after(request: Request, since: Annotated[str, Query(max_length=20_000)]) -> dict[str, Any]:
    """Return what happened after given positions, and where each topic stands."""
    hub: Hub = request.app.state.hub
    events: list[dict[str, Any]] = []
    at: dict[str, str] = {}
    for name, position in parsed(since).items():
        try:
            topic = hub.open(name)
            if position is None:
                at[name] = topic.position()
                continue
            at[name] = position
            for step in topic.after(position):
                events.append(
                    {"topic": name, "from": at[name], "to": step.position, "data": step.data}
                )
                at[name] = step.position
        except (EtudeError, OSError) as error:
            events.append({"topic": name, "gone": str(error)})
    return {"events": events, "at": at}
