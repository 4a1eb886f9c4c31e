"""Matched words in the texts of found papers, and the sentence that shows them best.

Texts are returned in pieces, each with whether it matched: whoever displays them escapes the pieces
first, and marks them then.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from etude.core.errors import QueryError
from etude.papers.search.nodes import And, Node, Or, Phrase, Prefix, Word
from etude.papers.search.query import parse
from etude.papers.search.text import plain, stems, words
from etude.papers.sentences import sentences
from etude.papers.words import folded, parts

LONGEST = 320
"""Maximum characters of a snippet."""
_WORD = re.compile(r"[^\W_]+")

Pieces = list[tuple[str, bool]]
"""Text in order; True marks what matched."""


@dataclass(frozen=True)
class _Wanted:
    stems: frozenset[str]
    words: frozenset[str]
    """Whole words, of which compounds may consist: yolo of YOLOv8."""
    prefixes: tuple[str, ...]

    def matches(self, word: str) -> bool:
        if not (self.stems or self.prefixes):
            return False
        if self.stems.intersection(_stems(word)) or self.words.intersection(parts(word)):
            return True
        return bool(self.prefixes) and folded(word).startswith(self.prefixes)


class Marker:
    """Marks the words that a query asks for.

    Args:
        query: as typed; one that cannot be read marks nothing.
    """

    def __init__(self, query: str) -> None:
        try:
            found = list(_positive(parse(query).node))
        except QueryError:
            found = []
        self._of = {
            field: _wanted([one for one in found if one.field in (None, field)])
            for field in ("title", "abstract", "author")
        }

    def marked(self, text: str, field: str) -> Pieces:
        """Return a plain text in pieces.

        Args:
            text: from `latex_to_text`.
            field: `title`, `abstract` or `author`.
        """
        wanted, pieces, at = self._of[field], Pieces(), 0
        for word in _WORD.finditer(text):
            if wanted.matches(word[0]):
                if word.start() > at:
                    pieces.append((text[at : word.start()], False))
                pieces.append((word[0], True))
                at = word.end()
        if at < len(text):
            pieces.append((text[at:], False))
        return pieces

    def snippet(self, abstract: str) -> Pieces:
        """Return the sentence with the most of the wanted words; empty if none has any."""
        best: Pieces = []
        most = 0
        for sentence in sentences(abstract):
            pieces = self.marked(sentence, "abstract")
            count = len({folded(text) for text, matched in pieces if matched})
            if count > most:
                best, most = pieces, count
        return _shortened(best)


def _positive(node: Node) -> Iterator[Word | Phrase | Prefix]:
    """Yield what a query wants, not what it excludes."""
    match node:
        case And(of) | Or(of):
            for one in of:
                yield from _positive(one)
        case Word() | Phrase() | Prefix():
            yield node
        case _:
            return


def _wanted(nodes: list[Word | Phrase | Prefix]) -> _Wanted:
    texts = [plain(one.text) for one in nodes if not isinstance(one, Prefix)]
    return _Wanted(
        frozenset(stem for text in texts for stem in stems(text)),
        frozenset(word for text in texts for word in words(text)),
        tuple(folded(one.text) for one in nodes if isinstance(one, Prefix) and one.text),
    )


@lru_cache(1 << 14)
def _stems(word: str) -> tuple[str, ...]:
    return tuple(stems(plain(word)))


def _shortened(pieces: Pieces) -> Pieces:
    """Return at most about `LONGEST` characters around the first match."""
    if sum(len(text) for text, _ in pieces) <= LONGEST:
        return pieces
    first = next(place for place, (_, matched) in enumerate(pieces) if matched)
    before = "".join(text for text, _ in pieces[:first])
    kept: Pieces = []
    if len(before) > LONGEST // 3:
        cut = before[-(LONGEST // 3) :]
        before = "… " + cut[cut.find(" ") + 1 :]
    if before:
        kept.append((before, False))
    left = LONGEST - len(before)
    for text, matched in pieces[first:]:
        if len(text) > left:
            if not matched:
                kept.append((text[: max(0, text.rfind(" ", 0, left + 1))] + " …", False))
            break
        kept.append((text, matched))
        left -= len(text)
    return kept
