"""What a room of the app is: a folder with routes and templates, and a line in the navigation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter

from etude.web.events import Source


@dataclass(frozen=True)
class Room:
    """A room.

    Each of its templates is named `NAME/file.html`, and lies in the folder `templates` beside its
    routes.
    """

    name: str
    """Of the templates."""
    title: str
    """In the navigation."""
    path: str
    """Of the first page."""
    routers: Sequence[APIRouter]
    folder: Path
    """With `templates/`."""
    sources: Sequence[Source] = ()
    """Topics of its own in the stream of events."""
    listed: bool = True
    """Whether the navigation names it."""
