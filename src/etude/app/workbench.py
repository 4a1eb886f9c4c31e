"""What the web app keeps open while it runs: the database, and each room's part of it for one user.

Pages are shown by GET requests, which write nothing. So what a visit of the command line writes in
passing (the time zone, the choice of the day's problem) is written here, when the workbench opens
and when a new day begins.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from etude.app.settings import UserSettings
    from etude.papers.library import Library
    from etude.papers.reader import Reader
    from etude.papers.settings import Settings
    from etude.practice.progress import UserProgress


@dataclass(frozen=True)
class Workbench:
    """The rooms of one user."""

    user: str
    engine: Engine
    reader: Reader
    """Likes, tags and searches."""
    runs: Path
    """Folder that runs are kept in."""
    progress: UserProgress

    @cached_property
    def library(self) -> Library:
        """The papers."""
        from etude.papers.library import Library

        return Library(self.engine)

    def settings(self) -> Settings:
        """Read papers.yaml, which may have changed since the last time.

        Raises:
            PapersError: a setting cannot be used.
        """
        from etude.app.papers.opening import open_settings

        return open_settings()

    def begin_day(self) -> None:
        """Choose the problem of the day, unless it is chosen already."""
        from etude.app.practice import daily_problem

        daily_problem(self.progress)

    @cached_property
    def choices(self) -> UserSettings:
        """What the user chose on the page of settings."""
        from etude.app.settings import UserSettings

        return UserSettings(self.engine, self.user)

    def close(self) -> None:
        """Close the database."""
        self.engine.dispose()


def open_workbench(user: str | None = None, runs: Path = Path("runs")) -> Workbench:
    """Open everything for a user; None is the current one.

    Args:
        user: name of the user.
        runs: folder that runs are kept in; it may not exist yet.

    Raises:
        StoreError: the database cannot be opened.
    """
    from etude.app.practice import open_progress
    from etude.core.user import current_user
    from etude.papers.reader import Reader

    progress = open_progress(user)
    reader = Reader(progress.engine, user or current_user("papers"))
    bench = Workbench(progress.user, progress.engine, reader, runs.absolute(), progress)
    bench.begin_day()
    return bench
