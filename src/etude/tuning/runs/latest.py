"""`latest`, the name of the newest run in a base folder."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from etude.core.atomic_files import replace_text
from etude.core.errors import RunError

LATEST = "latest"


def point_latest(parent: Path, name: str) -> None:
    """Let `parent/latest` name a run: a link, or a text file where links are not allowed."""
    link = parent / LATEST
    aside = parent / f".{LATEST}.{os.getpid()}"
    with suppress(OSError):
        aside.unlink()
    try:
        aside.symlink_to(name)
        aside.replace(link)
    except OSError:
        with suppress(OSError):
            aside.unlink()
        if link.is_dir() and not link.is_symlink():
            raise RunError(f"{link} is a folder; it should name the latest run: move it") from None
        replace_text(link, name + "\n")


def follow_latest(path: Path) -> Path:
    """Return the run that a link or text file `latest` names, or `path` itself."""
    if path.is_symlink():
        return path.resolve()
    if path.name == LATEST and path.is_file():
        return path.parent / path.read_text("utf-8").strip()
    return path
