"""Retrieval of one page of results, by date or relevance, on one snapshot of the index.

Newest first is fast because it searches the newest part of the papers first, with a size estimated
from term frequencies. A total that would cost more than the page itself is reported as
"at least".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any, Literal

from etude.papers.search.compile import Compiled, Compiler
from etude.papers.search.nodes import Category, described, words_of
from etude.papers.search.query import Parsed
from etude.papers.search.spelling import FEW, suggestions
from etude.papers.search.text import DAY

if TYPE_CHECKING:
    import tantivy

COUNTED = 300_000
"""Maximum `Compiled.cost` of a query with an exact total; others report "at least"."""

MOST_SCANNED_TIES = 200
"""Hits beyond the page that are read to order equally relevant ones newest first."""


@dataclass(frozen=True)
class Found:
    """A page of search results."""

    ids: list[str]
    total: int
    exact: bool = True
    """Whether `total` is exact; otherwise it is a lower bound."""
    suggestions: tuple[str, ...] = ()
    """Suggested queries, with rare words replaced by similar ones, best first."""
    explain: str = ""
    """Interpretation of the query, and what was parsed leniently."""
    scores: list[float] = field(default_factory=list[float])
    """BM25 of each id where the order is by relevance."""

    def counted(self) -> str:
        """Return the total as text: `1,234`, or `at least 1,234`."""
        return f"{self.total:,}" if self.exact else f"at least {self.total:,}"


_STEPS = 64


def ladder(searcher: tantivy.Searcher) -> list[int]:
    """Return keys above which about 1/64, 2/64, ... of the papers are, on day boundaries."""
    from tantivy import Query

    width = float(DAY * 8)
    # tantivy's annotations do not type the contents of its dicts.
    engine: Any = searcher
    counted: dict[str, Any] = engine.aggregate(
        Query.all_query(), {"days": {"histogram": {"field": "order", "interval": width}}}
    )
    buckets: list[tuple[int, int]] = [
        (int(one["key"]), one["doc_count"]) for one in counted["days"]["buckets"]
    ]
    total = sum(count for _, count in buckets)
    keys: list[int] = []
    seen = 0
    for key, count in reversed(buckets):
        seen += count
        while total and len(keys) < _STEPS and seen * _STEPS >= total * (len(keys) + 1):
            keys.append(key)
    return keys


class Search:
    """One search on one snapshot."""

    def __init__(self, index: tantivy.Index, searcher: tantivy.Searcher, ladder: list[int]) -> None:
        self.searcher = searcher
        self.ladder = ladder
        self.compiler = Compiler(index.schema, searcher, ladder)

    def run(
        self,
        text: str,
        parsed: Parsed,
        order: Literal["newest", "relevance"],
        most: int,
        offset: int,
        days: tuple[date | None, date | None],
        categories: Sequence[str] | None,
    ) -> Found:
        """Return the page of a parsed query; see `Index.search`."""
        compiler = self.compiler
        compiled = compiler.compile(parsed.node)
        said = [described(parsed.node), *parsed.notes]
        if categories is not None:
            named = [compiler.compile(Category(name.lower())) for name in categories]
            compiled = compiler.both(compiled, compiler.either(named))
            said.append("in " + ", ".join(categories))
        if days != (None, None):
            compiled = compiler.both(compiled, compiler.days(*days))
            said.append(f"announced {days[0] or ''}..{days[1] or ''}")
        said += [f"{text}* matches its most frequent words only" for text in compiler.narrowed]
        scores: list[float] = []
        if order == "relevance" and compiled.scored:
            scores, addresses, total, exact = self.relevant(compiled, most, offset)
            said.append("most relevant first")
        else:
            addresses, total, exact = self.newest(compiled, most, offset)
            said.append("newest first")
        ids = [self.searcher.doc(one).get_first("id") for one in addresses]
        meant: list[str] = []
        if total < FEW and exact:
            meant = suggestions(self.searcher, text, words_of(parsed.node))
        return Found([str(one) for one in ids], total, exact, tuple(meant), "; ".join(said), scores)

    def newest(
        self, compiled: Compiled, most: int, offset: int
    ) -> tuple[list[tantivy.DocAddress], int, bool]:
        """Return document addresses of a page, newest first, the total, and whether it is exact."""
        wanted = offset + most
        for low in self.windows(compiled, wanted):
            window = compiled
            if low is not None:
                window = self.compiler.both(compiled, self.compiler.keys(low, (1 << 63) - 1))
            # tantivy's annotations lack `count`.
            found: Any = self.searcher.search(
                window.query, max(1, most), count=True, order_by_field="order", offset=offset
            )
            count = int(found.count or 0)
            if low is None or count >= wanted:
                addresses = [address for _, address in found.hits[:most]]
                if low is not None and compiled.cost <= COUNTED:
                    return addresses, self.count(compiled), True
                return addresses, count, low is None
        return [], 0, True

    def windows(self, compiled: Compiled, wanted: int) -> Iterator[int | None]:
        """Yield the lowest keys of increasing parts of the papers, then None for all."""
        if compiled.cost > COUNTED // 10 and self.ladder:
            # Twice the part estimated from term frequencies, since topics vary over time.
            step = 2 * (wanted + 20) * _STEPS / max(1.0, compiled.likely)
            for factor in (1, 8):
                at = int(step * factor)
                if at < len(self.ladder) // 4:
                    yield self.ladder[at]
        yield None

    def relevant(
        self, compiled: Compiled, most: int, offset: int
    ) -> tuple[list[float], list[tantivy.DocAddress], int, bool]:
        """Return scores and addresses of a page, by relevance, and the total as in `newest`."""
        wanted = offset + most
        limit = max(1, wanted + 1)
        while True:
            hits = self.searcher.search(compiled.query, limit, count=False).hits
            # All papers with the score of the page's last are needed, to put the newest first.
            if len(hits) < limit or hits[-1][0] < hits[max(0, wanted - 1)][0]:
                break
            if limit >= wanted + MOST_SCANNED_TIES:
                break
            limit = min(wanted + MOST_SCANNED_TIES, limit * 2)
        keys = self.searcher.fast_field_values("order", [address for _, address in hits])
        ranked = sorted(
            zip(hits, keys, strict=True), key=lambda pair: (-pair[0][0], -int(pair[1] or 0))
        )[offset:wanted]
        if len(hits) < limit:
            total, exact = len(hits), True
        elif compiled.cost <= COUNTED:
            total, exact = self.count(compiled), True
        else:
            total, exact = len(hits), False
        return [hit[0] for hit, _ in ranked], [hit[1] for hit, _ in ranked], total, exact

    def count(self, compiled: Compiled) -> int:
        """Return the number of matching papers."""
        query = compiled.query
        found: Any = self.searcher.search(query, 1, count=True, order_by_field="order")
        return int(found.count or 0)
