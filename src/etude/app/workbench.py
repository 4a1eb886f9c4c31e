"""What the web app keeps open while it runs: the database, and each room's part of it for one user.

Pages are shown by GET requests, which write nothing. So what a visit of the command line writes in
passing (the time zone, the choice of the day's problem) is written here, when the workbench opens
and when a new day begins.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from etude.app.explaining import Explainer
    from etude.app.papers.ranking_process import RankingProcess
    from etude.app.papers.syncing import Syncer
    from etude.app.settings import UserSettings
    from etude.papers.feed_bodies import FeedBodies
    from etude.papers.library import Library
    from etude.papers.reader import Reader
    from etude.papers.search import Index
    from etude.papers.settings import Settings
    from etude.practice.drafts import Drafts
    from etude.practice.judge_process import JudgeProcess
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

    @cached_property
    def drafts(self) -> Drafts:
        """Code that was saved while it was written."""
        from etude.practice.drafts import Drafts

        return Drafts(self.engine, self.user)

    @cached_property
    def judge(self) -> JudgeProcess:
        """Starts a judge when something is submitted."""
        from etude.practice.judge_process import JudgeProcess

        return JudgeProcess(self.engine)

    @cached_property
    def explainer(self) -> Explainer:
        """Lets a language model explain failures."""
        from etude.app.explaining import Explainer

        return Explainer(self.progress)

    @cached_property
    def index(self) -> Index:
        """The full-text index of the papers, as it is: another process brings it up to date."""
        from etude.app.papers.opening import index_folder
        from etude.papers.search import Index

        return Index(index_folder(), self.library)

    @cached_property
    def ranking(self) -> RankingProcess:
        """Ranks papers for the reader."""
        from etude.app.papers.ranking_process import RankingProcess

        return RankingProcess(self.library, self.reader)

    @cached_property
    def syncer(self) -> Syncer:
        """Fetches papers."""
        from etude.app.papers.syncing import Syncer

        return Syncer(self.library)

    @cached_property
    def feeds(self) -> FeedBodies:
        """Feeds of the papers."""
        from etude.papers.feed_bodies import FeedBodies

        return FeedBodies(
            self.library, self.index, self.settings(), self.reader, for_you=self._for_you
        )

    def _for_you(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return papers in the order of the reader's interest; as they are before it is known."""
        answer = self.ranking.ask("newest", patience=20.0)
        by_id = {row["id"]: row for row in rows}
        return [by_id[key] for key in answer.value or by_id if key in by_id]

    def settings(self) -> Settings:
        """Read papers.yaml, which may have changed since the last time.

        Raises:
            PapersError: a setting cannot be used.
        """
        from etude.app.papers.opening import open_settings

        return open_settings()

    def begin_work(self) -> None:
        """Begin what goes on beside the pages: syncs by the calendar, and the order of the day."""
        self.syncer.keep()
        day = self.library.last_day()
        if day is not None and self.reader.stamp():
            self.ranking.ask("day", patience=0, day=day, shelf=None, replaced=False)

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
        """End the processes that work for it, and close the database."""
        if "judge" in self.__dict__:
            self.judge.close()
        if "syncer" in self.__dict__:
            self.syncer.close()
        if "ranking" in self.__dict__:
            self.ranking.close()
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
