"""Query language: a recursive descent parser with bounds on length, words and nesting.

    query   = either*                         implicit AND
    either  = negated ("OR" negated)*         OR binds closer than a space, as in "cat OR dog food"
    negated = ("-" | "NOT") negated | simple
    simple  = "(" query ")" | [field ":"] (word | prefix"*" | '"' phrase '"' | "(" query ")")

Fields are title, abstract, author, cat, since, until, date and id (arXiv's ti, abs and au, too);
`2026-04..2026-05` is a range of days, an arXiv id or URL finds that paper. Operators are
written in capitals: "or" is a word. tantivy's own query parser is not used.
"""

from __future__ import annotations

import calendar
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date

from etude.core.errors import QueryError, did_you_mean, nearest
from etude.papers.identity import parse_identifier
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
from etude.papers.search.text import plain

MOST_LETTERS = 4000
MOST_WORDS = 100
DEEPEST = 20
FIELDS = {
    **{"title": "title", "ti": "title", "abstract": "abstract", "abs": "abstract"},
    **{"author": "author", "au": "author", "cat": "cat", "category": "cat"},
    **{"since": "since", "until": "until", "date": "date", "id": "id"},
}
_QUOTES = str.maketrans({"“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "＂": '"'})
_DAY = re.compile(r"^(\d{4})(?:-?(\d{2})(?:-?(\d{2}))?)?$", re.ASCII)
_RANGE = re.compile(r"^([\d-]*)\.\.([\d-]*)$", re.ASCII)
_FIELD = re.compile(r"^([a-z]+):")
_CATEGORY = re.compile(r"^[a-z-]+(?:\.[a-z*-]+)?$", re.IGNORECASE | re.ASCII)
_LETTERS = re.compile(r"[^\W_]+")
_INITIAL = re.compile(r"^[^\W\d_]\.?$")


@dataclass(frozen=True)
class Parsed:
    """A parsed query; `notes` list what was parsed leniently, one clause each."""

    node: Node
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Token:
    kind: str
    """One of: ( ) or and not field phrase word."""
    text: str
    at: int
    """Position of its first character, from 1."""

    def where(self) -> str:
        return f"at character {self.at}"


def parse(text: str) -> Parsed:
    """Parse a query.

    Raises `QueryError`, on one line with the position, for unbalanced quotation marks or
    parentheses, operators without operands, invalid dates and categories, missing field values,
    unknown fields, more than `MOST_WORDS` words or `DEEPEST` nested parentheses.
    """
    if len(text) > MOST_LETTERS:
        raise QueryError(
            f"the query has {len(text):,} characters; the maximum is {MOST_LETTERS:,}: shorten it"
        )
    clean = "".join(_visible(text))
    hidden = len(clean) < len(text) or any(
        ord(letter) < 32 and not letter.isspace() for letter in text
    )
    notes = ["hidden characters ignored"] if hidden else []
    tokens = list(_tokens(clean.translate(_QUOTES)))
    count = sum(len(token.text.split()) for token in tokens if token.kind in {"word", "phrase"})
    if count > MOST_WORDS:
        raise QueryError(f"the query has {count:,} words; the maximum is {MOST_WORDS}: shorten it")
    if not tokens:
        return Parsed(And(), (*notes, "empty query: all papers"))
    parser = _Parser(tokens, notes)
    node = parser.query(None, 0)
    if parser.at < len(tokens):
        raise QueryError(
            f"the closing parenthesis {tokens[parser.at].where()} has no opening one: remove it"
        )
    if node is None:
        raise QueryError(f"no search term in {clean.strip()[:60]!r}: type a word or a field")
    return Parsed(node, tuple(parser.notes))


def span(text: str, what: str = "date") -> tuple[date, date]:
    """Return the first and last day of `2026`, `2026-04` or `2026-04-15`."""
    match = _DAY.match(text)
    try:
        if match is None:
            raise ValueError(text)
        year, month, day = (int(part) if part else 0 for part in match.groups())
        first = date(year, month or 1, day or 1)
        if day:
            return first, first
        month = month or 12
        return first, date(year, month, calendar.monthrange(year, month)[1])
    except ValueError:
        raise QueryError(
            f"{what} {text[:40]!r} is not a date; write 2026, 2026-04 or 2026-04-15"
        ) from None


def _visible(text: str) -> Iterator[str]:
    for letter in text:
        kind = unicodedata.category(letter)
        if letter.isspace() or kind == "Cc":
            yield " "
        elif kind not in {"Cf", "Cs", "Co", "Cn"}:
            yield letter


def _is_id(word: str) -> bool:
    try:
        parse_identifier(word)
    except ValueError:
        return False
    return True


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while at < len(text):
        letter = text[at]
        if letter == " ":
            at += 1
        elif letter in "()":
            yield _Token(letter, letter, at + 1)
            at += 1
        elif letter == '"':
            end = text.find('"', at + 1)
            if end < 0:
                raise QueryError(
                    f"the quotation mark at character {at + 1} is not closed: close it, or "
                    "leave it out"
                )
            yield _Token("phrase", text[at + 1 : end], at + 1)
            at = end + 1
        elif letter in "-−" and at + 1 < len(text) and text[at + 1] not in " -−)":
            yield _Token("not", "-", at + 1)
            at += 1
        else:
            end = at
            while end < len(text) and text[end] not in ' "()':
                end += 1
            word = text[at:end]
            field = _FIELD.match(word)
            if word in {"OR", "|", "||"}:
                yield _Token("or", word, at + 1)
            elif word in {"AND", "&&"}:
                yield _Token("and", word, at + 1)
            elif word == "NOT":
                yield _Token("not", word, at + 1)
            elif field and not _is_id(word):
                # No id in a URL contains parentheses, so words end there.
                if field[1] in FIELDS:
                    yield _Token("field", field[1], at + 1)
                    end = at + field.end()
                else:
                    _check_field(field[1], word, at + 1)
                    yield _Token("word", word, at + 1)
            else:
                yield _Token("word", word, at + 1)
            at = end


def _check_field(name: str, word: str, at: int) -> None:
    if len(word) > len(name) + 1 and nearest(name, FIELDS, 1):
        hint = did_you_mean(name, FIELDS)
        if len(name) > 2 and hint and nearest(name, FIELDS, 1)[0][0] == name[0]:
            raise QueryError(f"unknown field '{name}:' at character {at}{hint}")


class _Parser:
    def __init__(self, tokens: Sequence[_Token], notes: list[str]) -> None:
        self.tokens = tokens
        self.at = 0
        self.notes = notes

    def peek(self) -> str:
        return self.tokens[self.at].kind if self.at < len(self.tokens) else ""

    def take(self) -> _Token:
        self.at += 1
        return self.tokens[self.at - 1]

    def query(self, field: str | None, depth: int) -> Node | None:
        """Parse up to a closing parenthesis or the end; return None if it is empty."""
        found: list[Node] = []
        last: _Token | None = None
        while self.peek() not in {"", ")"}:
            if self.peek() == "and":
                last = self.take()
                if not found or self.peek() in {"", ")", "and", "or"}:
                    raise self.lonely(last)
                continue
            node = self.either(field, depth)
            if node is not None:
                found.append(node)
        if len(found) == 1:
            return found[0]
        return And(tuple(found)) if found else None

    def either(self, field: str | None, depth: int) -> Node | None:
        if self.peek() == "or":
            raise self.lonely(self.take())
        first = self.negated(field, depth)
        found = [] if first is None else [first]
        while self.peek() == "or":
            token = self.take()
            if self.peek() in {"", ")", "and", "or"}:
                raise self.lonely(token)
            node = self.negated(field, depth)
            if node is not None:
                found.append(node)
        if len(found) < 2:
            return found[0] if found else None
        return Or(tuple(found))

    @staticmethod
    def lonely(token: _Token) -> QueryError:
        return QueryError(
            f"{token.text} {token.where()} lacks a search term beside it: add a word, or remove it"
        )

    def negated(self, field: str | None, depth: int) -> Node | None:
        token: _Token | None = None
        odd = False
        while self.peek() == "not":
            token = self.take()
            odd = not odd
        if token is not None and self.peek() in {"", ")", "and", "or"}:
            raise self.lonely(token)
        node = self.simple(field, depth)
        return Not(node) if node is not None and odd else node

    def simple(self, field: str | None, depth: int) -> Node | None:
        token = self.take()
        if token.kind == "(":
            if depth >= DEEPEST:
                raise QueryError(
                    f"parentheses are nested more than {DEEPEST} deep {token.where()}: remove some"
                )
            node = self.query(field, depth + 1)
            if self.peek() != ")":
                raise QueryError(
                    f"the parenthesis {token.where()} is not closed: close it, or remove it"
                )
            self.take()
            return node
        if token.kind == "field":
            return self.fielded(token, depth)
        return self.leaf(token, field)

    def fielded(self, token: _Token, depth: int) -> Node | None:
        field = FIELDS[token.text]
        if self.peek() not in {"(", "phrase", "word"}:
            raise QueryError(f"nothing follows '{token.text}:' {token.where()}: add a value")
        if field == "author":
            initials = [self.take().text.rstrip(".")] if self.initial() else []
            while initials and self.initial():
                initials.append(self.take().text.rstrip("."))
            if initials and self.peek() == "word":
                return Phrase(" ".join([*initials, self.take().text]), field)
            if initials:
                return Word(" ".join(initials), field)
        return self.simple(field, depth)

    def initial(self) -> bool:
        return self.peek() == "word" and bool(_INITIAL.match(self.tokens[self.at].text))

    def leaf(self, token: _Token, field: str | None) -> Node | None:
        text = token.text.strip()
        if field in {"since", "until", "date"}:
            return self.days(text, field, token)
        if field == "cat":
            if not _CATEGORY.match(text):
                raise QueryError(f"{text[:40]!r} {token.where()} is not a category; use cs.CV")
            return Category(text.lower().removesuffix(".*"))
        if field == "id" or (field is None and token.kind == "word"):
            if _is_id(text):
                return PaperId(parse_identifier(text).id)
            if field == "id":
                raise QueryError(f"{text[:40]!r} {token.where()} is not an id; write 2604.01234")
            if _RANGE.match(text) and text.strip("."):
                return self.days(text, "date", token)
        kind: type[Word | Phrase | Prefix] = Phrase if token.kind == "phrase" else Word
        if token.kind == "word" and text.endswith("*"):
            text = text.rstrip("*")
            begun = _LETTERS.findall(plain(text))
            if begun:
                if len(begun[-1]) < 2:
                    raise QueryError(
                        f"{token.text!r} {token.where()} matches too many words: "
                        "type at least two letters"
                    )
                kind = Prefix
        if not any(letter.isalnum() for letter in plain(text)):
            self.notes.append(f"{text[:20]!r} ignored: it has no letters or digits")
            return None
        return kind(text, field)

    @staticmethod
    def days(text: str, field: str, token: _Token) -> Node:
        what = f"the date {token.where()},"
        if field == "date" and (match := _RANGE.match(text)):
            first = span(match[1], what)[0] if match[1] else None
            last = span(match[2], what)[1] if match[2] else None
            if first and last and first > last:
                raise QueryError(f"{text!r} {token.where()} ends before it begins: swap the dates")
            return Days(first, last)
        first, last = span(text, what)
        return Days(None if field == "until" else first, None if field == "since" else last)
