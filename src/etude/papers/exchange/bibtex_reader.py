"""BibTeX reader, tolerant of what people and programs write.

The grammar is that of Patashnik's BibTeX: text outside entries is a comment, values are braces,
quotes, numbers or names joined by `#`, braces nest. Names are resolved through `@string` and the
known months; an unknown name is left as written, since an unneeded field should not make the
file unreadable.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from etude.core.errors import PapersError
from etude.papers.exchange.bibtex import MONTHS
from etude.papers.exchange.entry import (
    Entry,
    categories_in,
    identifier_in,
    identifier_of,
    journal_of,
    publisher_doi,
)
from etude.papers.exchange.latex import plain
from etude.papers.exchange.names import Name, reversed_name
from etude.papers.words import shown

_START = re.compile(r"@\s*([A-Za-z]\w*)\s*([{(])")
_KEY = re.compile(r"\s*([^\s,{}]*)\s*(,|(?=[})]))")
_NAME = re.compile(r"\s*([^\s\"#%'(),={}]+)\s*=\s*")
_BARE = re.compile(r"[^\s\"#%'(),={}]+")
_SPACE = re.compile(r"\s*")
_MARK = re.compile(r"\\.|[{}\"]", re.DOTALL)
# Fields in which other programs put the arXiv id, most reliable first.
_SEARCHED = (
    *("url", "doi", "arxivid", "arxiv", "ee", "link", "note", "howpublished", "journal", "number"),
    *("volume", "pages", "annote", "comment", "publisher", "booktitle", "file", "keywords"),
)


@dataclass
class _File:
    """A file being parsed, and the position."""

    text: str
    name: str
    place: int = 0

    def line(self, place: int) -> int:
        return self.text.count("\n", 0, place) + 1

    def error(self, what: str, place: int | None = None) -> PapersError:
        at = self.line(self.place if place is None else place)
        return PapersError(f"{self.name}, line {at}: {what}")

    def skip(self) -> str:
        """Skip white space; return the next character, or an empty string at the end."""
        match = _SPACE.match(self.text, self.place)
        self.place = match.end() if match else self.place
        return self.text[self.place : self.place + 1]


def read_bibtex(text: str, name: str) -> list[Entry]:
    """Return the entries of a BibTeX file, in its order."""
    return [_entry(kind, key, fields, place) for kind, key, fields, place in _entries(text, name)]


def _entries(text: str, name: str) -> Iterator[tuple[str, str, dict[str, str], str]]:
    file = _File(text, name)
    strings = {month: month for month in MONTHS}
    line, counted = 1, 0
    while match := _START.search(text, file.place):
        file.place = match.end()
        kind, closing = match[1].lower(), "}" if match[2] == "{" else ")"
        line, counted = line + text.count("\n", counted, match.start()), match.start()
        if kind in {"comment", "preamble"}:
            _braced(file, match.start(), closing)
            continue
        key = ""
        if kind != "string":
            head = _KEY.match(text, file.place)
            if head is None:
                raise file.error(f"expected a key and a comma after @{match[1]}{match[2]}")
            key, file.place = head[1], head.end()
        fields = _fields(file, match.start(), closing, strings)
        if kind == "string":
            strings.update(fields)
        else:
            yield kind, key, fields, f"{name}, line {line}"


def _fields(file: _File, start: int, closing: str, strings: dict[str, str]) -> dict[str, str]:
    fields: dict[str, str] = {}
    while True:
        letter = file.skip()
        if letter == closing:
            file.place += 1
            return fields
        if letter == ",":
            file.place += 1
            continue
        if not letter:
            raise file.error("this entry is not closed; a brace is missing", start)
        match = _NAME.match(file.text, file.place)
        if match is None:
            found = shown(file.text[file.place : file.place + 30])
            raise file.error(f"expected `field = value`, found {found!r}")
        file.place = match.end()
        value = _value(file, start, strings)
        # JabRef and others repeat a field; BibTeX takes the first.
        fields.setdefault(match[1].lower(), value)
        if file.skip() not in {",", closing, ""}:
            raise file.error(f"no comma after the value of {match[1]!r}")


def _value(file: _File, start: int, strings: dict[str, str]) -> str:
    pieces: list[str] = []
    while True:
        letter = file.skip()
        if letter == "{":
            file.place += 1
            pieces.append(_braced(file, start, "}"))
        elif letter == '"':
            file.place += 1
            pieces.append(_braced(file, start, '"'))
        else:
            match = _BARE.match(file.text, file.place)
            if match is None:
                raise file.error("a field has no value")
            file.place = match.end()
            pieces.append(strings.get(match[0].lower(), match[0]))
        if file.skip() != "#":
            return "".join(pieces)
        file.place += 1


def _braced(file: _File, start: int, closing: str) -> str:
    """Return the text up to `closing` outside of inner braces, and move past it."""
    opened, depth = file.place, 0
    if closing == ")":
        end = file.text.find(")", opened)
        if end < 0:
            raise file.error("this entry is not closed; `)` is missing", start)
        file.place = end + 1
        return file.text[opened:end]
    for match in _MARK.finditer(file.text, opened):
        sign = match[0][-1]
        # BibTeX counts an escaped brace as a brace; hand-written files use it as a letter, so such
        # a file is read only where its other braces balance.
        if len(match[0]) > 1:
            continue
        if sign == closing and depth == 0:
            file.place = match.end()
            return file.text[opened : match.start()]
        if sign == "{":
            depth += 1
        elif sign == "}":
            depth -= 1
            if depth < 0:
                break
    raise file.error(f"this entry is not closed; {closing!r} is missing", start)


def _entry(kind: str, key: str, fields: dict[str, str], place: str) -> Entry:
    archive = fields.get("archiveprefix") or fields.get("eprinttype") or ""
    primary = fields.get("primaryclass") or fields.get("eprintclass") or ""
    found = None
    if fields.get("eprint"):
        found = identifier_of(plain(fields["eprint"]), archive, primary)
    if found is None and fields.get("arxivid"):
        found = identifier_of(plain(fields["arxivid"]), "", primary)
    if found is None:
        found = identifier_in(plain(fields[name]) for name in _SEARCHED if name in fields)
    categories = [primary, fields.get("keywords", "")]
    journal = fields.get("journal") or fields.get("journaltitle") or fields.get("booktitle") or ""
    return Entry(
        place,
        found,
        title=plain(fields.get("title", "")),
        authors=tuple(filter(None, map(_author, _authors(fields.get("author", ""))))),
        abstract=plain(fields.get("abstract", "")),
        categories=categories_in(",".join(map(plain, categories))),
        doi=publisher_doi(plain(fields.get("doi", ""))),
        journal_ref=None if kind == "misc" else journal_of(plain(journal)),
        comment=plain(fields.get("comment") or fields.get("note") or "") or None,
        key=key,
    )


def _authors(text: str) -> list[str]:
    """Return the names of a list, separated by `and` outside of braces."""
    names: list[str] = [""]
    depth = 0
    for word in re.split(r"(\s+)", text.strip()):
        if depth == 0 and word.lower() == "and":
            names.append("")
            continue
        depth += word.count("{") - word.count("}")
        names[-1] += word
    return [name.strip() for name in names if name.strip() and name.strip().lower() != "others"]


def _author(text: str) -> str:
    whole = text.strip()
    if whole.startswith("{") and _closes(whole) == len(whole) - 1:
        return str(Name(literal=plain(whole)))
    pieces: list[str] = []
    depth = start = 0
    for place, letter in enumerate(whole):
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            pieces.append(whole[start:place])
            start = place + 1
    parts = [plain(piece) for piece in [*pieces, whole[start:]]]
    if len(parts) == 1:
        return parts[0]
    if len(parts) == 2:
        return str(reversed_name(parts[0], parts[1]))
    return str(reversed_name(parts[0], ", ".join(parts[2:]), parts[1]))


def _closes(text: str) -> int:
    """Return the index of the brace that closes the one at the start of `text`, or -1."""
    depth = 0
    for place, letter in enumerate(text):
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if depth == 0:
            return place
    return -1
