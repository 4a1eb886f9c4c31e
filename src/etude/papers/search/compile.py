"""Compiler from parsed queries to tantivy queries, with cost estimates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import reduce
from typing import TYPE_CHECKING

from etude.papers.search.nodes import (
    And,
    Category,
    Days,
    Node,
    Not,
    Or,
    PaperId,
    Phrase,
    Prefix,
    Word,
)
from etude.papers.search.text import DAY, day_keys, joined, name_query, plain, stems, words

if TYPE_CHECKING:
    from tantivy import Query, Schema, Searcher

TITLE_WEIGHT = 2.0
"""Weight of a match in the title relative to one in the abstract."""

MOST_EXPANSIONS = 300
"""Maximum number of words, most frequent first, that a prefix expands to."""


@dataclass(frozen=True)
class Compiled:
    """A tantivy query with its estimates."""

    query: Query
    most: int
    """Upper bound of matching papers."""
    cost: int
    """Estimated number of posting list entries read to see all matches."""
    likely: float
    """Estimated number of matching papers, assuming independent words."""
    scored: bool
    """Whether the query gives matches different scores."""


class Compiler:
    """Compiler for one searcher, whose term frequencies decide costs and expansions."""

    def __init__(self, schema: Schema, searcher: Searcher, ladder: Sequence[int] = ()) -> None:
        """`ladder`: keys that divide the papers into equal parts, newest first."""
        self.ladder = ladder
        self.schema = schema
        self.searcher = searcher
        self.narrowed: list[str] = []
        """Prefixes that were expanded to their most frequent words only."""

    def compile(self, node: Node) -> Compiled:
        """Return the compiled query of `node`."""
        from tantivy import Query

        match node:
            case Word(text, field):
                found = self.either(self._words(text, field, phrase=False))
                return self._silent(found) if field == "author" else found
            case Phrase(text, field):
                found = self.either(self._words(text, field, phrase=True))
                return self._silent(found) if field == "author" else found
            case Prefix(text, field):
                return self._prefix(text, field)
            case Category(name):
                return self._silent(self._term("cat", name))
            case PaperId(key):
                return self.paper(key)
            case Days(first, last):
                return self.days(first, last)
            case Not(of):
                return self._and([self.all_papers()], [self.compile(of)])
            case And(of):
                wanted = [self.compile(one) for one in of if not isinstance(one, Not)]
                unwanted = [self.compile(one.of) for one in of if isinstance(one, Not)]
                return self._and(wanted or [self.all_papers()], unwanted)
            case Or(of):
                return self.either([self.compile(one) for one in of])
        return Compiled(Query.empty_query(), 0, 0, 0, False)

    def paper(self, key: str) -> Compiled:
        """Return a query for the paper with this id."""
        return self._silent(self._term("id", key))

    def all_papers(self) -> Compiled:
        """Return a query for all papers, without the index's own metadata document."""
        return self.days(None, None)

    def days(self, first: date | None, last: date | None) -> Compiled:
        """Return a query for papers announced from `first` to `last`."""
        return self.keys(*day_keys(first, last))

    def keys(self, low: int, high: int) -> Compiled:
        """Return a query for papers with an `order_key` from `low` to `high`, on day boundaries."""
        from tantivy import FieldType, Query

        count = papers = self.searcher.num_docs
        if self.ladder:
            # One more than the parts in between, since the ends of the range are inside parts.
            parts = sum(low <= key <= high for key in self.ladder) + 1
            count = min(papers, papers * parts // len(self.ladder) + 1)
        if count < papers // 4:
            # A posting list per day costs a tenth of the column next to a frequent word.
            query = Query.range_query(
                self.schema,
                "day",
                FieldType.Unsigned,
                lower_bound=low // DAY,
                upper_bound=high // DAY,
                use_inverted_index=True,
            )
        else:
            query = Query.range_query(
                self.schema, "order", FieldType.Unsigned, lower_bound=low, upper_bound=high
            )
        return Compiled(Query.const_score_query(query, 0.0), papers, count, count, False)

    def both(self, first: Compiled, second: Compiled) -> Compiled:
        """Return the conjunction of two queries."""
        return self._and([first, second], [])

    @staticmethod
    def _silent(compiled: Compiled) -> Compiled:
        from tantivy import Query

        query = Query.const_score_query(compiled.query, 0.0)
        return Compiled(query, compiled.most, compiled.cost, compiled.likely, False)

    def _term(self, field: str, term: str) -> Compiled:
        from tantivy import Query

        # Term frequencies are scored in titles and abstracts only.
        option = "freq" if field in {"title", "abstract"} else "basic"
        query = Query.term_query(self.schema, field, term, option)
        count = self.searcher.doc_freq(field, term)
        if field == "title":
            query = Query.boost_query(query, TITLE_WEIGHT)
        return Compiled(query, count, count, count, True)

    def _phrase(self, field: str, terms: Sequence[str]) -> Compiled:
        from tantivy import Query

        if len(terms) == 1:
            return self._term(field, terms[0])
        query = Query.phrase_query(self.schema, field, list(terms))
        counts = [self.searcher.doc_freq(field, term) for term in terms]
        if field == "title":
            query = Query.boost_query(query, TITLE_WEIGHT)
        # Positions are read as well.
        least = min(counts)
        # Words of a phrase are correlated: one in ten papers with the rarest has them all.
        return Compiled(query, least, least * len(counts) * 3, least / 10, True)

    def _words(self, text: str, field: str | None, *, phrase: bool) -> list[Compiled]:
        """Return the alternatives for a word or phrase in `field`, or in any field for None."""
        spelt = plain(text)
        found: list[Compiled] = []
        terms = stems(spelt)
        fields = [field] if field in {"title", "abstract"} else ["title", "abstract"]
        if field != "author" and terms:
            found += [self._phrase(one, terms) for one in fields]
            whole = [] if phrase else joined(spelt)
            if len(whole) == 1 and len(whole[0]) == sum(map(len, terms)):
                found += [self._term(one, stems(whole[0])[0]) for one in fields]
        if field in {None, "author"}:
            found += [self._term("author", term) for term in self._names(text, field, phrase)]
        return found

    @staticmethod
    def _names(text: str, field: str | None, phrase: bool) -> list[str]:
        names = name_query(text)
        if field is None and len(names) > 1 and not phrase:
            # A hyphenated word is not a name with initials.
            return names[:1]
        return names

    def _prefix(self, text: str, field: str | None) -> Compiled:
        from tantivy import Query

        typed = words(plain(text))
        if not typed:
            return Compiled(Query.empty_query(), 0, 0, 0, False)
        head, start = typed[:-1], typed[-1]
        fields = ["title", "abstract", "author"] if field is None else [field]
        found: list[Compiled] = []
        for one in fields:
            terms = self._beginning(one, start)
            if len(terms) > MOST_EXPANSIONS and text not in self.narrowed:
                self.narrowed.append(text)
            terms = terms[:MOST_EXPANSIONS]
            if not terms:
                continue
            counts = sum(self.searcher.doc_freq(one, term) for term in terms)
            query = Query.term_set_query(self.schema, one, terms)
            found.append(self._silent(Compiled(query, counts, counts, counts, False)))
        last = self.either(found)
        if not head:
            return last
        before = self.either(self._words(" ".join(head), field, phrase=True))
        return self._and([before, last], [])

    def _beginning(self, field: str, start: str) -> list[str]:
        """Return the terms of `field` for words that begin with `start`, most frequent first.

        Titles and abstracts contain stems: those that begin with it, and the stems of title words
        that do. ("segmenta" begins no stem, since that of segmentation is "segment".)
        """
        most = MOST_EXPANSIONS + 1
        found = [term for term, _ in self.searcher.terms_with_prefix(field, start, limit=most)]
        if field == "author":
            return [term for term in found if " " not in term]
        written = self.searcher.terms_with_prefix("word", start, limit=most)
        more = [stem for word, _ in written for stem in stems(word)]
        return list(dict.fromkeys([*found, *more]))

    def either(self, of: Sequence[Compiled]) -> Compiled:
        """Return the disjunction of queries."""
        from tantivy import Occur, Query

        living = [one for one in of if one.most] or list(of[:1])
        if not living:
            return Compiled(Query.empty_query(), 0, 0, 0, False)
        if len(living) == 1:
            return living[0]
        return Compiled(
            Query.boolean_query([(Occur.Should, one.query) for one in living]),
            min(sum(one.most for one in living), self.searcher.num_docs),
            sum(one.cost for one in living),
            min(sum(one.likely for one in living), self.searcher.num_docs),
            any(one.scored for one in living),
        )

    def _and(self, wanted: Sequence[Compiled], unwanted: Sequence[Compiled]) -> Compiled:
        from tantivy import Occur, Query

        if len(wanted) == 1 and not unwanted:
            return wanted[0]
        most = min(one.most for one in wanted)
        # The cost is bounded by the rarest part, by its bound or its estimate.
        least = min(min(one.most, one.cost) for one in wanted)
        papers = max(1, self.searcher.num_docs)
        likely = float(papers)
        for one in wanted:
            likely *= min(1.0, one.likely / papers)
        for one in unwanted:
            likely *= max(0.0, 1 - one.likely / papers)
        every = [*wanted, *unwanted]
        clauses = [(Occur.Must, one.query) for one in wanted]
        clauses += [(Occur.MustNot, one.query) for one in unwanted]
        return Compiled(
            Query.boolean_query(clauses),
            most,
            reduce(lambda total, one: total + min(one.cost, least * 4), every, 0),
            likely,
            any(one.scored for one in wanted),
        )
