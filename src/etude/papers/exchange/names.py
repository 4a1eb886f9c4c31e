"""Parsing of authors' names into family name, given names, particle and suffix.

Sources give a name as on the paper, `Laurens van der Maaten`; bibliographies need
the family name. The text alone does not determine it, so this follows BibTeX's rule (Patashnik,
BibTeXing, 1988, section 4): the family name is the last word with the lower-case words before it.
Added to that are capitalised particles of Romance, Dutch and Arabic names (`Luc Van Gool`),
suffixes (`Jr.`), and collective names, which stay whole.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from etude.papers.words import shown

_SUFFIXES = {"jr", "jr.", "sr", "sr.", "ii", "iii", "iv", "2nd", "3rd"}
# Capitalised words that begin a family name. Those that are also common given
# names (Di, Da, Ben, Le, La) are left out: `Van` alone is one in Vietnamese, after a family name.
_LARGE = {"Van", "Von", "De", "Del", "Della", "Der", "Den", "Dos", "El", "St.", "Ter"}
_GROUP = re.compile(
    r"\b(?:teams?|collaborations?|consorti(?:um|a)|groups?|projects?|foundation|institutes?|"
    r"universit(?:y|ies)|hospital|labs?|laborator(?:y|ies)|network|initiative|community|"
    r"committee|inc|corporation|et al)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Name:
    """A person's name in parts, or, with `literal` alone, a collective name."""

    family: str = ""
    given: str = ""
    particle: str = ""
    """Lower-case words before the family name, `van der`."""
    suffix: str = ""
    literal: str = ""

    def __str__(self) -> str:
        if self.literal:
            return self.literal
        return " ".join(
            part for part in (self.given, self.particle, self.family, self.suffix) if part
        )

    @property
    def sorted_by(self) -> str:
        """`van der Maaten, Laurens, Jr.`: family name first."""
        if self.literal:
            return self.literal
        family = f"{self.particle} {self.family}" if self.particle else self.family
        return ", ".join(part for part in (family, self.given, self.suffix) if part)


def split_name(text: str) -> Name:
    """Parse a name in either order: `Ada Lovelace` or `Lovelace, Ada`."""
    whole = shown(text)
    if _GROUP.search(whole) or not any(letter.isalpha() for letter in whole):
        return Name(literal=whole)
    pieces = [piece.strip() for piece in whole.split(",") if piece.strip()]
    if len(pieces) == 2 and pieces[1].lower() in _SUFFIXES:
        return _from_words([*pieces[0].split(), pieces[1]])
    if len(pieces) == 2:
        return reversed_name(pieces[0], pieces[1])
    if len(pieces) == 3 and pieces[2].lower() in _SUFFIXES:
        return reversed_name(pieces[0], pieces[1], pieces[2])
    if len(pieces) == 3 and pieces[1].lower() in _SUFFIXES:
        return reversed_name(pieces[0], pieces[2], pieces[1])
    if len(pieces) > 1:
        return Name(literal=whole)
    return _from_words(whole.split())


def reversed_name(family: str, given: str = "", suffix: str = "") -> Name:
    """Return the name `family, given, suffix`; leading lower-case words are its particle."""
    words = family.split()
    small = _leading_small(words)
    if not given and not suffix and len(words) == 1:
        return Name(literal=family)
    return Name(" ".join(words[small:]), given, " ".join(words[:small]), suffix)


def _from_words(words: list[str]) -> Name:
    suffix = ""
    if len(words) > 2 and words[-1].lower() in _SUFFIXES:
        suffix = words.pop()
    if len(words) < 2:
        return Name(literal=" ".join([*words, suffix]).strip())
    start = len(words) - 1
    for place in range(1, len(words) - 1):
        if _is_small(words[place]) or words[place] in _LARGE:
            start = place
            break
    family = words[start:]
    small = _leading_small(family)
    return Name(" ".join(family[small:]), " ".join(words[:start]), " ".join(family[:small]), suffix)


def _leading_small(words: list[str]) -> int:
    count = 0
    while count < len(words) - 1 and _is_small(words[count]):
        count += 1
    return count


def _is_small(word: str) -> bool:
    # Names in scripts without case have no particles.
    return word[:1].islower() and word not in {"and", "&"}
