"""Matching of authors' names across spellings.

`José García`, `Garcia, J.` and `J. A. Garcia` may be one person. Names match if the last words are
equal and the given names are compatible in order, an initial standing for any name that begins with
it. Two people with the same name are not distinguished.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from etude.papers.words import folded

_SUFFIXES = {"jr", "sr", "ii", "iii", "iv", "phd"}
# Letters that Unicode does not decompose, and German ones that are also written with an e.
_PLAIN = str.maketrans(
    {"ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "đ": "d", "Đ": "D", "ı": "i", "ð": "d", "æ": "ae"}
)
_GERMAN = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue"})
_LONGEST = 200
_INITIALS = 3
"""Up to so many capitals in a row are initials: JP for Jean-Pierre."""


@dataclass(frozen=True, slots=True)
class Name:
    """A parsed name: last word and given names, folded."""

    family: str
    given: tuple[str, ...]
    joined: str
    """Given names without separators: Kai-Ming and Kaiming are the same."""


def _taken_apart(text: str) -> Name | None:
    head, comma, tail = text.partition(",")
    words = [word for word in re.split(r"[\s.]+", f"{tail} {head}" if comma else text) if word]
    words = [word for word in words if folded(word) not in _SUFFIXES] or words
    if not words:
        return None
    given: list[str] = []
    for word in words[:-1]:
        for piece in re.split(r"[-‐‑]", word):
            short = 1 < len(piece) <= _INITIALS and piece.isupper()
            given += [folded(letter) for letter in piece] if short else [folded(piece)]
    given = [piece for piece in given if piece]
    return Name(folded(words[-1]), tuple(given), "".join(given))


@lru_cache(maxsize=20_000)
def spellings(text: str) -> tuple[Name, ...]:
    """Return the parsed spellings of `text`: none if empty, two if it has umlauts."""
    text = text[:_LONGEST]
    found = (_taken_apart(text.translate(_PLAIN)), _taken_apart(text.translate(_GERMAN | _PLAIN)))
    return tuple(dict.fromkeys(name for name in found if name is not None))


def _in_order(short: Sequence[str], long: Sequence[str]) -> bool:
    rest = iter(long)
    return all(any(_agree(one, other) for other in rest) for one in short)


def _agree(one: str, other: str) -> bool:
    return one == other or (min(len(one), len(other)) == 1 and one[0] == other[0])


def _same(followed: Name, author: Name) -> bool:
    if followed.family != author.family:
        return False
    if not followed.given or not author.given:
        # A last word alone matches all who have it; an author without given names does not match
        # one with them.
        return not followed.given
    if followed.joined == author.joined:
        return True
    if not _agree(followed.given[0], author.given[0]):
        return False
    short, long = sorted((followed.given[1:], author.given[1:]), key=len)
    return _in_order(short, long)


def same_author(followed: str, author: str) -> bool:
    """Whether `author`, as a paper writes it, may be the person written as `followed`."""
    return any(_same(one, other) for one in spellings(followed) for other in spellings(author))


def followed_among(followed: Sequence[str], authors: Sequence[str]) -> list[str]:
    """Return the names of `followed` that match one of `authors`, in the order of `followed`.

    Time is linear in the number of authors: 3,303 authors take one pass.
    """
    by_family: dict[str, list[Name]] = {}
    for author in authors if followed else ():
        for name in spellings(author):
            by_family.setdefault(name.family, []).append(name)
    return [
        text
        for text in followed
        if any(
            _same(name, author)
            for name in spellings(text)
            for author in by_family.get(name.family, ())
        )
    ]
