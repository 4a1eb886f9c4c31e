"""Authors' names in parts, and back.

Sources give a name as it is written on the paper, `Laurens van der Maaten`; bibliographies want to
know which part is the family's. Nothing in the text says so for certain, so this follows BibTeX's
rule (Patashnik, BibTeXing, 1988, section 4): the family name is the last word, and small words
before it belong to it. To that come words that Romance, Dutch and Arabic names write large
(`Luc Van Gool`), suffixes (`Jr.`), and names that are no person's, which stay whole.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from etude.papers.words import shown

_SUFFIXES = {"jr", "jr.", "sr", "sr.", "ii", "iii", "iv", "2nd", "3rd"}
# Words that open a family name though they are written large. Those that are also common given
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
    """A person's name in parts, or, with `literal` alone, a name that has none."""

    family: str = ""
    given: str = ""
    particle: str = ""
    """Small words before the family name, `van der`."""
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
    """The parts of a name in either order: `Ada Lovelace` or `Lovelace, Ada`."""
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
    """The name of `family, given, suffix`; small words that open `family` are its particle."""
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
    # A small letter as such: names in scripts without cases have no particles.
    return word[:1].islower() and word not in {"and", "&"}
