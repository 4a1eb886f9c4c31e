"""Abstract syntax tree of queries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True)
class Word:
    """A word as typed; `field` None means title, abstract and authors."""

    text: str
    field: str | None = None


@dataclass(frozen=True)
class Phrase:
    """A sequence of adjacent words."""

    text: str
    field: str | None = None


@dataclass(frozen=True)
class Prefix:
    """Words with this prefix."""

    text: str
    field: str | None = None


@dataclass(frozen=True)
class Category:
    """A category, or an archive with all of its categories; lower case."""

    name: str


@dataclass(frozen=True)
class Days:
    """Announced from `first` to `last`, both included; None is open."""

    first: date | None = None
    last: date | None = None


@dataclass(frozen=True)
class PaperId:
    """A paper by its unversioned id."""

    id: str


@dataclass(frozen=True)
class Not:
    """Papers that do not match `of`."""

    of: Node


@dataclass(frozen=True)
class And:
    """Papers that match all; if empty, all papers."""

    of: tuple[Node, ...] = ()


@dataclass(frozen=True)
class Or:
    """Papers that match any."""

    of: tuple[Node, ...]


Node = Word | Phrase | Prefix | Category | Days | PaperId | Not | And | Or


def described(node: Node) -> str:
    """Return a query's interpretation, on one line."""
    match node:
        case And(()):
            return "all papers"
        case And(of):
            return " AND ".join(_nested(one) for one in of)
        case Or(of):
            return " OR ".join(_nested(one) for one in of)
        case Not(of):
            return f"NOT {_nested(of)}"
        case Category(name):
            return f"cat:{name}"
        case PaperId(key):
            return f"id:{key}"
        case Days(first, last) if first == last and first:
            return f"date:{first}"
        case Days(first, last):
            return f"date:{first or ''}..{last or ''}"
        case Prefix(text, field):
            return f"{field + ':' if field else ''}{text}*"
        case Phrase(text, field):
            return f'{field + ":" if field else ""}"{text}"'
        case Word(text, field):
            return f"{field + ':' if field else ''}{text}"


def _nested(node: Node) -> str:
    return f"({described(node)})" if isinstance(node, And | Or) else described(node)


def words_of(node: Node) -> Iterator[Word]:
    """Yield every word that matching papers must have."""
    match node:
        case And(of) | Or(of):
            for one in of:
                yield from words_of(one)
        case Word():
            yield node
        case _:
            return
