"""Client for arXiv's query API: papers by date of submission, by id, or by newest change.

A page has at most 2,000 results, and results past 10,000 may not come at all, so a window of dates
with more is halved. The order is unreliable (for two days in November 2025 it was ignored), so
pages are sorted here and nothing stops at a date. Errors are Atom feeds under HTTP 400, or 200.
Source: https://info.arxiv.org/help/api/user-manual.html and answers recorded in April and May 2026.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from xml.etree.ElementTree import Element

from etude.core.errors import SourceError
from etude.papers.arxiv.rate_limited_client import Answer, DamagedError, RateLimitedClient
from etude.papers.arxiv.text import moment, parsed, plain_name, says_withdrawn
from etude.papers.identity import Identifier, parse_identifier
from etude.papers.record import Sighting

PAGE = 2000
FURTHEST = 10_000
IDS_A_REQUEST = 200
"""Ids per request, which keeps the URL below 4 kB."""
_ATOM = "{http://www.w3.org/2005/Atom}"
_ARXIV = "{http://arxiv.org/schemas/atom}"
_SEARCH = "{http://a9.com/-/spec/opensearch/1.1/}"


@dataclass(frozen=True, slots=True)
class Results:
    """One page of results."""

    papers: tuple[Sighting, ...]
    total: int
    """The server's count, which may be wrong."""
    skipped: int = 0
    """Number of malformed entries."""


def read_results(answer: Answer) -> Results:
    """Parse a response.

    Raises:
        DamagedError: the feed is incomplete.
        SourceError: the API reports an error, or the request was refused.
    """
    try:
        root = parsed(answer.body, "the response of the query API")
    except DamagedError:
        if answer.status != 200:
            raise SourceError(f"{answer.address} was refused: HTTP {answer.status}") from None
        raise
    entries = root.findall(f"{_ATOM}entry")
    for entry in entries:
        if "/api/errors" in entry.findtext(f"{_ATOM}id", "") and (
            entry.findtext(f"{_ATOM}title", "").strip() == "Error"
        ):
            raise SourceError(f"arXiv's query API reports: {entry.findtext(f'{_ATOM}summary', '')}")
    if answer.status != 200:
        raise SourceError(f"{answer.address} was refused: HTTP {answer.status}")
    if root.tag != f"{_ATOM}feed":
        raise DamagedError("the response is not from the query API")
    papers: list[Sighting] = []
    for entry in entries:
        try:
            papers.append(_paper(entry))
        except ValueError:
            continue
    total = root.findtext(f"{_SEARCH}totalResults", "").strip()
    return Results(tuple(papers), int(total) if total.isdigit() else 0, len(entries) - len(papers))


def _paper(entry: Element) -> Sighting:
    found = parse_identifier(entry.findtext(f"{_ATOM}id", ""))
    title, abstract = entry.findtext(f"{_ATOM}title"), entry.findtext(f"{_ATOM}summary")
    if title is None:
        raise ValueError(f"{found} has no title")
    primary = entry.find(f"{_ARXIV}primary_category")
    categories = [of.get("term", "") for of in entry.findall(f"{_ATOM}category")]
    if primary is not None:
        categories.insert(0, primary.get("term", ""))
    comment = entry.findtext(f"{_ARXIV}comment") or ""
    names = [author.findtext(f"{_ATOM}name") or "" for author in entry.findall(f"{_ATOM}author")]
    return Sighting(
        found.id,
        title,
        abstract or "",
        tuple(plain_name(name) for name in names if name.strip()),
        tuple(dict.fromkeys(category for category in categories if category)),
        version=found.version,
        published=moment(entry.findtext(f"{_ATOM}published")),
        updated=moment(entry.findtext(f"{_ATOM}updated")),
        comment=comment,
        journal_ref=entry.findtext(f"{_ARXIV}journal_ref") or "",
        doi=entry.findtext(f"{_ARXIV}doi") or "",
        withdrawn=True if says_withdrawn(comment, abstract) else None,
    )


def by_id(gate: RateLimitedClient, ids: Sequence[str]) -> list[Sighting]:
    """Fetch the papers of `ids`, in any order; unknown ids are omitted.

    Raises:
        SourceError: no answer, or the API rejects an id.
    """
    found: list[Sighting] = []
    for start in range(0, len(ids), IDS_A_REQUEST):
        some = ids[start : start + IDS_A_REQUEST]
        # Without max_results the list would be truncated at ten.
        query = {"id_list": ",".join(some), "max_results": str(len(some))}
        found += gate.ask(gate.settings.query, read_results, query=query).papers
    return found


def submitted(
    gate: RateLimitedClient,
    categories: Sequence[str],
    since: datetime,
    until: datetime,
    told: Callable[[str], None] | None = None,
) -> Iterator[list[Sighting]]:
    """Yield pages of papers whose first version was submitted from `since` to `until`, in UTC.

    The bounds are minutes, both inclusive. A window with more than the API returns is halved.
    `told` is called with a line about windows that returned fewer papers than counted.

    Raises:
        SourceError: no answer, or a refusal.
    """
    windows = [(since, until)]
    while windows:
        start, end = windows.pop()
        search = f"{_any_of(categories)} AND submittedDate:[{start:%Y%m%d%H%M} TO {end:%Y%m%d%H%M}]"
        halves: list[tuple[datetime, datetime]] | None = None
        given = total = 0
        for page in _pages(gate, search, "submittedDate", "ascending"):
            wide = end - start >= timedelta(minutes=2)
            if page.total > FURTHEST and wide:
                middle = start + (end - start) / 2
                middle = middle.replace(second=0, microsecond=0)
                halves = [(middle, end), (start, middle)]
                break
            given, total = given + len(page.papers) + page.skipped, max(total, page.total)
            yield sorted(page.papers, key=_age)
        if halves is not None:
            windows += halves
        elif given < total and told:
            told(f"{start:%Y-%m-%d} to {end:%Y-%m-%d}: counted {total} papers, returned {given}")


def changed(
    gate: RateLimitedClient,
    categories: Sequence[str],
    known: Callable[[Sequence[Identifier]], set[Identifier]],
    *,
    page: int = 500,
) -> Iterator[list[Sighting]]:
    """Yield pages of the newest changes, until `known` has every paper of a page.

    Two pages in a row must be known completely, since the server's order is unreliable.

    Raises:
        SourceError: no answer, or a refusal.
    """
    quiet = 0
    for found in _pages(gate, _any_of(categories), "lastUpdatedDate", "descending", page):
        wanted = [Identifier(paper.id, paper.version) for paper in found.papers]
        new = set(wanted) - known(wanted)
        yield sorted(found.papers, key=_age, reverse=True)
        quiet = 0 if new else quiet + 1
        if quiet == 2:
            return


def _any_of(categories: Sequence[str]) -> str:
    joined = " OR ".join(f"cat:{category}" for category in categories)
    return f"({joined})"


def _age(paper: Sighting) -> datetime:
    return paper.published or datetime.min.replace(tzinfo=UTC)


def _pages(
    gate: RateLimitedClient, search: str, by: str, order: str, size: int = PAGE
) -> Iterator[Results]:
    """Yield pages of a search; an unexpectedly empty page is requested three times."""
    start, total = 0, 0
    while start < FURTHEST:
        asked = min(size, FURTHEST - start)
        query = {
            "search_query": search,
            "start": str(start),
            "max_results": str(asked),
            "sortBy": by,
            "sortOrder": order,
        }
        found = gate.ask(gate.settings.query, _PatientReader(start, total), query=query)
        entries = len(found.papers) + found.skipped
        total = max(total, found.total)
        if entries or not start:
            yield found
        start += entries
        # The count may be wrong either way, so request another page after every full one.
        if not entries or (entries < asked and start >= total):
            return


@dataclass(slots=True)
class _PatientReader:
    """Parser that treats an unexpectedly empty page as damaged, unless it comes three times."""

    start: int
    total: int
    empty: int = 0

    def __call__(self, answer: Answer) -> Results:
        found = read_results(answer)
        due = max(found.total, self.total)
        if not found.papers and not found.skipped and self.start < due:
            self.empty += 1
            if self.empty < 3:
                raise DamagedError(f"an empty page at {self.start} of {due} results")
        return found
