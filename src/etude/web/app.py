"""The app: rooms, error pages and the stream of events, behind the gate."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from etude.app.jobs import advance
from etude.web import assets, entrance, events
from etude.web.errors import add_error_pages, refusal
from etude.web.events import Hub
from etude.web.pages import make_templates
from etude.web.rooms import ROOMS
from etude.web.security import LARGEST_FORM, Gate

if TYPE_CHECKING:
    from etude.app.workbench import Workbench
    from etude.web.session import Password, Sessions

LOG = logging.getLogger(__name__)
LOCAL = ("127.0.0.1", "localhost", "::1")
DAY_CHECK_SECONDS = 300
QUEUE_CHECK_SECONDS = 5


@dataclass(frozen=True)
class App:
    """The whole ASGI app."""

    asgi: ASGIApp
    """Behind its gate."""
    inner: FastAPI
    routes: tuple[APIRoute, ...]
    """All of them; nothing else answers."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        await self.asgi(scope, receive, send)


def create_app(
    bench: Workbench,
    sessions: Sessions,
    *,
    port: int,
    hosts: Iterable[str] = LOCAL,
    password: Password | None = None,
) -> App:
    """Return the app.

    Args:
        bench: the open rooms; the app does not close them.
        sessions: let browsers in.
        port: that the server listens on.
        hosts: names and addresses that browsers may use for it.
        password: let in who knows it, too.
    """
    hub = Hub(bench, [source for room in ROOMS for source in room.sources])

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        hub.start()
        await asyncio.to_thread(bench.judge.want_if_waiting)
        tasks = [asyncio.create_task(hub.watch()), asyncio.create_task(_begin_days(bench))]
        tasks.append(asyncio.create_task(_advance_queue(bench)))
        yield
        hub.close()
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    inner = FastAPI(
        title="Etude",
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        # Nothing leaves this machine, whatever the environment asks for.
        telemetry={"auto_configure": False, "tracing": False, "metrics": False, "logs": False},
        max_body_size=LARGEST_FORM,
    )
    routers = [assets.router, entrance.router, events.router]
    routers += [router for room in ROOMS for router in room.routers]
    routes: list[APIRoute] = []
    for router in routers:
        for route in router.routes:
            if not isinstance(route, APIRoute):
                raise TypeError(f"{route}: the gate knows HTTP routes only, not nested routers")
            routes.append(route)
        inner.include_router(router)
    add_error_pages(inner)
    inner.add_middleware(GZipMiddleware, minimum_size=1000, compresslevel=6)
    inner.state.bench, inner.state.hub = bench, hub
    inner.state.sessions, inner.state.port, inner.state.tries = sessions, port, deque[float]()
    gate = Gate(inner, routes=routes, hosts=hosts, port=port, sessions=sessions, refuse=refusal)
    templates = make_templates(ROOMS)

    async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            scope.setdefault("state", {}).update(templates=templates, password=password)
        await gate(scope, receive, send)

    return App(with_state, inner, tuple(routes))


async def _begin_days(bench: Workbench) -> None:
    """Choose the day's problem soon after a day has begun, as pages write nothing."""
    while True:
        await asyncio.sleep(DAY_CHECK_SECONDS)
        try:
            await asyncio.to_thread(bench.begin_day)
        except Exception as error:  # a database that is away now is asked again
            LOG.warning("the day's problem was not chosen: %s", error)


async def _advance_queue(bench: Workbench) -> None:
    """Start the next run where the process before it was killed, and so did not start it."""
    while True:
        try:
            await asyncio.to_thread(advance, bench.runs)
        except Exception as error:  # a full disk, say: later there may be space
            LOG.warning("the queue of runs does not go on: %s", error)
        await asyncio.sleep(QUEUE_CHECK_SECONDS)
