"""One page of what a query finds, in one of two orders, on one snapshot of the index.

Newest first is fast because matches are looked for in the newest part of the papers first, in a
part as large as the words' frequencies say is needed. A total that would cost more than the page
itself is told as "at least".
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
"""A query that costs less (`Compiled.cost`) is counted to the end; another says "at least"."""

MOST_SCANNED_TIES = 200
"""Beyond a page, this many hits are looked at to put equally relevant ones newest first."""


@dataclass(frozen=True)
class Found:
    """A page of what a search found."""

    ids: list[str]
    total: int
    exact: bool = True
    """Whether `total` is all there are; otherwise there are at least that many."""
    suggestions: tuple[str, ...] = ()
    """The query with its rare words replaced by ones that look alike, best first."""
    explain: str = ""
    """How the query was read, and what was read leniently."""
    scores: list[float] = field(default_factory=list[float])
    """BM25 of each id where the order is by relevance."""

    def counted(self) -> str:
        """The total in words: `1,234`, or `at least 1,234`."""
        return f"{self.total:,}" if self.exact else f"at least {self.total:,}"


_STEPS = 64


def ladder(searcher: tantivy.Searcher) -> list[int]:
    """Keys above which about 1/64, 2/64, ... of the papers are, newest first; days apart."""
    from tantivy import Query

    width = float(DAY * 8)
    # The engine's annotations leave open what is in its dicts.
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
        """The page of a query as it was read; see `Index.search`."""
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
        said += [f"{text}* stands for its most frequent words only" for text in compiler.narrowed]
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
        """Addresses of a page, newest first, how many there are, and whether that is all."""
        wanted = offset + most
        for low in self.windows(compiled, wanted):
            window = compiled
            if low is not None:
                window = self.compiler.both(compiled, self.compiler.keys(low, (1 << 63) - 1))
            # Its annotations lack `count`.
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
        """Lowest keys of ever larger parts of the papers, then None for all."""
        if compiled.cost > COUNTED // 10 and self.ladder:
            # Twice the papers that the words' frequencies promise: fashions change.
            step = 2 * (wanted + 20) * _STEPS / max(1.0, compiled.likely)
            for factor in (1, 8):
                at = int(step * factor)
                if at < len(self.ladder) // 4:
                    yield self.ladder[at]
        yield None

    def relevant(
        self, compiled: Compiled, most: int, offset: int
    ) -> tuple[list[float], list[tantivy.DocAddress], int, bool]:
        """Scores and addresses of a page, most relevant first, and the total as of `newest`."""
        wanted = offset + most
        limit = max(1, wanted + 1)
        while True:
            hits = self.searcher.search(compiled.query, limit, count=False).hits
            # All that are as relevant as the page's last must be known, to put the newest first.
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
        """How many papers match."""
        query = compiled.query
        found: Any = self.searcher.search(query, 1, count=True, order_by_field="order")
        return int(found.count or 0)
