"""OAI-PMH harvester: fetches every change since the last harvest, page by page.

Each page is stored in one transaction with the progress of the harvest. An interrupted harvest
resumes with its resumption token, or after its expiry from the last day read. If OAI-PMH is down,
the newest changes from the query API replace it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

from etude.core.errors import SourceDownError, SourceError
from etude.papers.arxiv.oai import ExpiredTokenError, Page, first_page, next_page
from etude.papers.arxiv.query import changed
from etude.papers.arxiv.session import SyncSession
from etude.papers.calendar import last_publication
from etude.papers.categories import oai_set
from etude.papers.identity import Identifier
from etude.papers.library import Library

_STAND_IN_PAGES = 10


def due(run: SyncSession) -> bool:
    """Whether OAI-PMH has published since the last complete harvest."""
    published = last_publication(run.now()).timestamp()
    marks = [run.facts(f"oai:{oai_set(name)}") for name in run.settings.categories]
    return any(mark.get("harvest") or mark.get("success", 0) < published for mark in marks)


def harvest(run: SyncSession) -> None:
    """Store the changes in every category's set since its last complete harvest."""
    errors: list[str] = []
    before, read = run.papers, 0
    for category in run.settings.categories:
        try:
            _harvest(run, oai_set(category))
            read += 1
        except SourceDownError as error:
            errors.append(str(error))
            break
        except SourceError as error:
            errors.append(f"{category}: {error}")
    count = run.papers - before
    text = f"{count} records of {len(run.settings.categories)} sets"
    run.note("oai", count, text, "; ".join(errors) or None)
    if read or not errors:
        return
    try:
        count = 0
        pages = changed(run.gate, run.settings.categories, lambda ids: _known(run.library, ids))
        for number, papers in enumerate(pages, 1):
            run.put(papers, {})
            count += len(papers)
            run.tell("query", f"{count} newest changes in place of OAI-PMH")
            if number == _STAND_IN_PAGES:
                break
        run.note("query", count, f"{count} newest changes, in place of OAI-PMH", None)
    except SourceError as error:
        run.note("query", 0, "", str(error))


def _known(library: Library, ids: Sequence[Identifier]) -> set[Identifier]:
    versions = {row["id"]: row["version"] or 0 for row in library.get_many([of.id for of in ids])}
    return {of for of in ids if versions.get(of.id, -1) >= (of.version or 0)}


def _harvest(run: SyncSession, name: str) -> None:
    """Harvest the changes of a set, resuming where the last run stopped."""
    key = f"oai:{name}"
    mark: dict[str, Any] = run.facts(key)
    ago = timedelta(days=run.settings.first_days)
    since = date.fromisoformat(mark["from"]) if "from" in mark else (run.now() - ago).date()
    page, start, last = None, None, None
    kept = mark.get("harvest")
    if kept:
        start, last = date.fromisoformat(kept["start"]), _day_or_none(kept["last"])
        if kept["expires"] is not None and kept["expires"] > run.clock() + run.settings.timeout:
            with contextlib.suppress(ExpiredTokenError):
                page = next_page(run.gate, kept["token"])
                # A record that changed meanwhile shifts the others, so read that day again.
                start = min(start, last or start)
    expired = 0
    while True:
        if page is None:
            since = max(since, last or since)
            page = first_page(run.gate, name, since)
            if since > page.answered:  # a clock, ours or the server's, was ahead
                since = page.answered - ago
                page = first_page(run.gate, name, since)
            start = start or page.answered
        assert start is not None
        last = max((of for of in (last, page.last) if of is not None), default=None)
        progress: dict[str, Any] = {"from": since.isoformat(), "success": mark.get("success", 0)}
        if page.token:
            progress["harvest"] = {
                "start": start.isoformat(),
                "last": last.isoformat() if last else None,
                "token": page.token,
                "expires": page.expires.timestamp() if page.expires else None,
            }
        else:
            progress |= {"from": start.isoformat(), "success": run.clock()}
        run.put(page.records, {key: progress})
        run.tell("oai", f"{name}: {run.papers} records")
        if not page.token:
            return
        page, expired = _following(run, page, expired)


def _following(run: SyncSession, page: Page, expired: int) -> tuple[Page | None, int]:
    """Return the next page; None if its token has expired and the harvest continues by date."""
    assert page.token is not None
    try:
        return next_page(run.gate, page.token), expired
    except ExpiredTokenError:
        if expired >= run.settings.tries:
            raise
        return None, expired + 1


def _day_or_none(text: str | None) -> date | None:
    return date.fromisoformat(text) if text else None
