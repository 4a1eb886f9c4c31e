"""What the templates of Papers show of a paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from etude.app.papers.reading import ListedPaper, listed
from etude.papers.card import Card, card

if TYPE_CHECKING:
    from etude.app.workbench import Workbench
    from etude.papers.search.snippets import Marker, Pieces


@dataclass(frozen=True)
class Item:
    """A paper in a list; its texts are plain, and the templates escape them."""

    paper: ListedPaper
    shelves: Mapping[str, Sequence[str]]
    marker: Marker | None = None
    """Marks what a search asked for."""
    back: str = ""
    """Address of the page it is on, to which its forms lead back."""

    @property
    def id(self) -> str:
        """The unversioned arXiv id."""
        return self.paper.row["id"]

    @cached_property
    def card(self) -> Card:
        """Its texts without LaTeX."""
        return card(self.paper.row)

    @property
    def title(self) -> Pieces:
        """Return its title, in pieces with whether they were searched for."""
        if self.marker is None:
            return [(self.card.title, False)]
        return self.marker.marked(self.card.title, "title")

    @property
    def line(self) -> Pieces:
        """Return one line on it: where the words of a search are, else its summary."""
        if self.marker is not None and (found := self.marker.snippet(self.card.abstract)):
            return found
        return [(self.card.summary, False)] if self.card.summary else []

    @property
    def also(self) -> list[str]:
        """Return the shelves it is on besides that of its primary category."""
        of = self.card.categories
        return [
            name
            for name, wanted in self.shelves.items()
            if set(wanted) & set(of) and of[0] not in wanted
        ]

    @property
    def because(self) -> list[str]:
        """Return the words that raised it most, or why it is here without them."""
        return self.paper.because()


def items(
    bench: Workbench,
    rows: Sequence[dict[str, Any]],
    back: str,
    why: Mapping[str, Sequence[Sequence[Any]]] | None = None,
    marker: Marker | None = None,
) -> list[Item]:
    """Return what to show of papers, in their order.

    Args:
        bench: whose reader's opinions and tags are shown.
        rows: of the library.
        back: address of the page.
        why: by id, the deciding words with their weights.
        marker: marks what was searched for.
    """
    shelves = bench.settings().shelves
    words = [
        tuple((str(word), float(weight)) for word, weight in (why or {}).get(row["id"], ()))
        for row in rows
    ]
    return [Item(paper, shelves, marker, back) for paper in listed(bench.reader, rows, words)]


def local(address: str) -> str:
    """Return an address of this room, or its first page for any other."""
    own = address == "/papers" or address.startswith(("/papers/", "/papers?"))
    plain = address.isascii() and address.isprintable() and "\\" not in address
    return address if own and plain and "//" not in address.partition("?")[0] else "/papers"
