"""Query API of the fake server, modelled on responses recorded in April and May 2026."""

from __future__ import annotations

import base64
import hashlib
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from etude.papers.fake_arxiv.texts import iso, xml
from etude.papers.fake_arxiv.world import State, Version, World
from etude.papers.identity import parse_identifier

LARGEST_PAGE = 2000
FURTHEST = 10_000
MOST = 30_000
_ORDERS = ("relevance", "lastUpdatedDate", "submittedDate")
_TOKEN = re.compile(
    r'\(|\)|(?:submittedDate|lastUpdatedDate):\[\d+ TO \d+\]|[a-z]+:"[^"]*"|"[^"]*"|[^\s()]+'
)
_HEAD = (
    "<?xml version='1.0' encoding='UTF-8'?>\n"
    '<feed xmlns:opensearch="http://a9.com/-/spec/opensearch/1.1/" '
    'xmlns:arxiv="http://arxiv.org/schemas/atom" xmlns="http://www.w3.org/2005/Atom">\n'
)
_SCHEME = "http://arxiv.org/schemas/atom"
_Test = Callable[[State], bool]


@dataclass(frozen=True, slots=True)
class Wrong:
    """Faults of the API."""

    empty: bool = False
    shuffle: bool = False
    missing: bool = False
    total: int | None = None


class RefusedError(Exception):
    """A request that the API rejects."""


def error_feed(text: str, moment: datetime) -> bytes:
    """Return an error as the API sends it."""
    where = f"https://arxiv.org/api/errors#{xml(re.sub(r'[^A-Za-z0-9.-]+', '_', text))}"
    return (
        f"{_HEAD}  <id>https://arxiv.org/</id>\n  <title>arXiv Search Results</title>\n"
        f"  <updated>{iso(moment)}</updated>\n"
        "  <opensearch:itemsPerPage>1</opensearch:itemsPerPage>\n"
        "  <opensearch:totalResults>1</opensearch:totalResults>\n"
        "  <opensearch:startIndex>0</opensearch:startIndex>\n"
        f"  <entry>\n    <id>{where}</id>\n    <title>Error</title>\n"
        f"    <updated>{iso(moment)}</updated>\n"
        f'    <link href="{where}" rel="alternate" type="text/html"/>\n'
        f"    <summary>{xml(text)}</summary>\n"
        "    <author>\n      <name>arXiv api core</name>\n    </author>\n  </entry>\n</feed>\n"
    ).encode()


def answer(
    world: World, asked: Mapping[str, str], moment: datetime, wrong: Wrong
) -> tuple[int, bytes]:
    """Return status and body for the parameters of a request."""
    try:
        return 200, _results(world, asked, moment, wrong)
    except RefusedError as problem:
        return 400, error_feed(str(problem), moment)


def _number(asked: Mapping[str, str], name: str, default: int) -> int:
    try:
        number = int(asked.get(name) or default)
    except ValueError as error:
        raise RefusedError(f"{name} must be an integer") from error
    if number < 0:
        raise RefusedError(f"{name} must be non-negative")
    return number


def _results(world: World, asked: Mapping[str, str], moment: datetime, wrong: Wrong) -> bytes:
    start, most = _number(asked, "start", 0), _number(asked, "max_results", 10)
    if most > MOST:
        raise RefusedError(f"max_results must be no more than {MOST}")
    by, order = asked.get("sortBy") or "relevance", asked.get("sortOrder") or "descending"
    if by not in _ORDERS:
        raise RefusedError(f"sortBy must be in: {', '.join(_ORDERS)}")
    if order not in {"ascending", "descending"}:
        raise RefusedError("sortOrder must be in: ascending, descending")
    search, ids = asked.get("search_query", ""), asked.get("id_list", "")
    if not search and not ids:
        raise RefusedError("search_query or id_list is required")
    found = _of_ids(world, ids, moment) if ids else world.states(moment)
    if search:
        test = _Parser(search).test
        found = [state for state in found if test(state)]
    if not ids or by != "relevance":
        found = _sorted(found, by, order)
    if wrong.missing:
        found = found[1::2]
    if wrong.shuffle:
        found = random.Random(f"{search}{ids}").sample(list(found), len(found))
    page = found[start : start + min(most, LARGEST_PAGE)] if start < FURTHEST else []
    if wrong.empty and start:
        page = []
    total = len(found) if wrong.total is None else wrong.total
    query = f"search_query={search}&id_list={ids}&start={start}&max_results={most}"
    key = base64.b64encode(hashlib.sha1(query.encode()).digest()).decode().rstrip("=")
    link = f"search_query={search}&start={start}&max_results={most}&id_list={ids}"
    return (
        f"{_HEAD}  <id>https://arxiv.org/api/{key}</id>\n"
        f"  <title>arXiv Query: {xml(query)}</title>\n  <updated>{iso(moment)}</updated>\n"
        f'  <link href="https://arxiv.org/api/query?{xml(link)}" type="application/atom+xml"/>\n'
        f"  <opensearch:itemsPerPage>{most}</opensearch:itemsPerPage>\n"
        f"  <opensearch:totalResults>{total}</opensearch:totalResults>\n"
        f"  <opensearch:startIndex>{start}</opensearch:startIndex>\n"
        f"{''.join(_entry(state) for state in page)}</feed>\n"
    ).encode()


def _of_ids(world: World, ids: str, moment: datetime) -> list[State]:
    seen = {state.paper.id: state for state in world.states(moment)}
    found: list[State] = []
    for text in ids.split(","):
        try:
            identifier = parse_identifier(text)
        except ValueError as error:
            raise RefusedError(f"incorrect id format for {text}") from error
        state = seen.get(identifier.id)
        if state is None:
            continue
        if identifier.version is not None:
            events = [
                event
                for event in state.paper.events
                if event.version.number == identifier.version and event.day <= state.event.day
            ]
            if not events:
                continue
            state = State(state.paper, events[-1])
        found.append(state)
    return found


def _sorted(found: Sequence[State], by: str, order: str) -> list[State]:
    if by == "relevance":
        return sorted(found, key=lambda of: hashlib.sha1(of.paper.id.encode()).digest())
    first = by == "submittedDate"

    def when(state: State) -> tuple[datetime, str]:
        version: Version = state.paper.first if first else state.event.version
        return version.submitted, state.paper.id

    return sorted(found, key=when, reverse=order == "descending")


def _entry(state: State) -> str:
    event, version = state.event, state.event.version
    name = f"{state.paper.id}v{version.number}"
    parts = [
        f"  <entry>\n    <id>http://arxiv.org/abs/{name}</id>\n",
        f"    <title>{xml(version.title)}</title>\n",
        f"    <updated>{iso(version.submitted)}</updated>\n",
        f'    <link href="https://arxiv.org/abs/{name}" rel="alternate" type="text/html"/>\n',
        f'    <link href="https://arxiv.org/pdf/{name}" rel="related" type="application/pdf" '
        'title="pdf"/>\n',
        f"    <summary>{xml(version.abstract)}</summary>\n",
    ]
    parts += [f'    <category term="{of}" scheme="{_SCHEME}"/>\n' for of in event.categories]
    parts.append(f"    <published>{iso(state.paper.first.submitted)}</published>\n")
    if version.comment:
        parts.append(f"    <arxiv:comment>{xml(version.comment)}</arxiv:comment>\n")
    parts.append(f'    <arxiv:primary_category term="{event.categories[0]}"/>\n')
    if event.journal_ref:
        parts.append(f"    <arxiv:journal_ref>{xml(event.journal_ref)}</arxiv:journal_ref>\n")
    parts += [
        f"    <author>\n      <name>{xml(author)}</name>\n    </author>\n"
        for author in version.authors
    ]
    if event.doi:
        parts.append(
            f"    <arxiv:doi>{xml(event.doi)}</arxiv:doi>\n"
            f'    <link rel="related" href="https://doi.org/{xml(event.doi)}" title="doi"/>\n'
        )
    return "".join([*parts, "  </entry>\n"])


class _Parser:
    """Parser of the API's query language: fields, AND, OR, ANDNOT, parentheses, dates."""

    def __init__(self, text: str) -> None:
        self._tokens = _TOKEN.findall(text)
        self._at = 0
        self.test = self._either()
        if self._at < len(self._tokens):
            raise RefusedError(f"Invalid query string: {text!r}")

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _next(self) -> str:
        token = self._peek()
        self._at += 1
        return token

    def _either(self) -> _Test:
        tests = [self._both()]
        while self._peek() not in {"", ")"}:
            if self._peek() == "OR":
                self._next()
            # A missing operator is an OR.
            tests.append(self._both())
        return lambda state: any(test(state) for test in tests)

    def _both(self) -> _Test:
        tests = [self._one()]
        while self._peek() in {"AND", "ANDNOT"}:
            negated = self._next() == "ANDNOT"
            test = self._one()
            tests.append((lambda state, of=test: not of(state)) if negated else test)
        return lambda state: all(test(state) for test in tests)

    def _one(self) -> _Test:
        token = self._next()
        if token == "(":
            test = self._either()
            if self._next() != ")":
                raise RefusedError("Invalid query string: a parenthesis is not closed")
            return test
        if token in {"", ")", "AND", "OR", "ANDNOT"}:
            raise RefusedError(f"Invalid query string: {token!r}")
        field, colon, value = token.partition(":")
        if not colon:
            field, value = "all", token
        if field in {"submittedDate", "lastUpdatedDate"}:
            return _dates(value)
        return _words(field, value.strip('"').lower())


def _dates(value: str) -> _Test:
    # Both names refer to the date of the first version.
    low, high = re.findall(r"\d+", value)
    since, until = _minute(low, "000101010000"), _minute(high, "999912312359")
    return lambda state: (
        since <= f"{state.paper.first.submitted.astimezone(UTC):%Y%m%d%H%M}" <= until
    )


def _minute(text: str, filling: str) -> str:
    return text + filling[len(text) :]


def _words(field: str, value: str) -> _Test:
    if field == "cat":
        if value.endswith("*"):
            return lambda state: any(
                of.lower().startswith(value[:-1]) for of in state.event.categories
            )
        return lambda state: any(of.lower() == value for of in state.event.categories)
    if field not in {"ti", "au", "abs", "co", "jr", "id", "all"}:
        return lambda _: False

    def test(state: State) -> bool:
        version = state.event.version
        texts = {
            "ti": version.title,
            "abs": version.abstract,
            "au": " ".join(version.authors),
            "co": version.comment,
            "jr": state.event.journal_ref,
            "id": state.paper.id,
        }
        chosen = texts.values() if field == "all" else [texts[field]]
        return any(value.replace("_", " ") in text.lower() for text in chosen)

    return test
