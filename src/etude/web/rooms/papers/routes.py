"""The room's routes: lists, a paper, what is followed, exchange and feeds, health."""

from __future__ import annotations

from pathlib import Path

from etude.web.events import Source
from etude.web.room import Room
from etude.web.rooms.papers import exchange, following, health, lists, paper

ROOM = Room(
    "papers",
    "Papers",
    "/papers",
    [
        lists.router,
        paper.router,
        following.router,
        exchange.router,
        exchange.feeds_router,
        health.router,
    ],
    Path(__file__).parent,
    [Source("papers", health.open_papers)],
)
