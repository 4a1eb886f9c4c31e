r"""Text analysis of the index: the same normalisation for papers and queries.

First `plain` unifies spellings: LaTeX's accents and Greek letters (``\beta``-VAE, β-VAE: beta-VAE),
sub- and superscripts of one letter (``$L_0$``, L₀: L0), ``C++``
(cpp), ``3-D`` (3D). Then tantivy splits at characters other than letters and digits, folds case and
accents, and for titles and abstracts stems the words (Snowball's English stemmer).
"""

from __future__ import annotations

import functools
import itertools
import re
import unicodedata
import zlib
from datetime import date
from typing import TYPE_CHECKING

from etude.papers.latex_symbols import ACCENT_LETTERS, ACCENT_SIGNS
from etude.papers.words import LONGEST_WORD

if TYPE_CHECKING:
    import tantivy

_GREEK = {
    "alpha": "αΑ", "beta": "βΒ", "gamma": "γΓ", "delta": "δΔ", "epsilon": "εϵΕ", "zeta": "ζΖ",
    "eta": "ηΗ", "theta": "θϑΘ", "iota": "ιΙ", "kappa": "κϰΚ", "lambda": "λΛ", "mu": "μΜ",
    "nu": "νΝ", "xi": "ξΞ", "omicron": "οΟ", "pi": "πϖΠ", "rho": "ρϱΡ", "sigma": "σςΣ",
    "tau": "τΤ", "upsilon": "υΥ", "phi": "φϕΦ", "chi": "χΧ", "psi": "ψΨ", "omega": "ωΩ",
}  # fmt: skip
_LETTER_NAMES = {ord(letter): name for name, letters in _GREEK.items() for letter in letters}
_COMMANDS = {name: name for name in _GREEK} | {
    **{f"var{name}": name for name in _GREEK},
    **{"ell": "l", "ss": "ss", "o": "o", "O": "O", "l": "l", "L": "L", "i": "i", "j": "j"},
    **{"ae": "ae", "AE": "AE", "oe": "oe", "OE": "OE", "aa": "a", "AA": "A"},
}
_UNUSUAL = re.compile(r"[\\${}_^~+#]|-[dD]\b")
_ACCENT = re.compile(
    rf"\\(?:[{re.escape(ACCENT_SIGNS)}]|[{ACCENT_LETTERS}t](?=\s*\{{|\s+[A-Za-z]\b))"
    r"\s*\{?\s*\\?([A-Za-z])\s*\}?"
)
_COMMAND = re.compile(r"\\([A-Za-z]+)\s?")
_SCRIPT = re.compile(r"(?<![A-Za-z0-9])([A-Za-z])[_^]\{?([A-Za-z0-9]{1,2})\}?(?![A-Za-z0-9])")
_PLUSES = re.compile(r"(?<![A-Za-z0-9])[cC]\+\+")
_SHARP = re.compile(r"(?<![A-Za-z0-9])([cCfF])#")
_DIMENSIONS = re.compile(r"(?<![A-Za-z0-9.])(\d)-[dD]\b")
_MARKUP = str.maketrans({"\\": " ", "$": None, "{": None, "}": None, "~": " "})
_JOINT = re.compile(r"-([vV]?\d+[A-Za-z]?)\b")
_NAME_BEFORE = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]+$")


def plain(text: str) -> str:
    """Return `text` with variant spellings unified."""
    ascii_only = text.isascii()
    if ascii_only and not _UNUSUAL.search(text):
        return text
    if not ascii_only:
        text = unicodedata.normalize("NFKC", text.encode("utf-8", "replace").decode("utf-8"))
        text = text.translate(_LETTER_NAMES)
    if "\\" in text:
        text = _ACCENT.sub(r"\1", text)
        text = _COMMAND.sub(lambda match: _COMMANDS.get(match[1], " "), text)
    if "+" in text:
        text = _PLUSES.sub("cpp", text)
    if "#" in text:
        text = _SHARP.sub(r"\1sharp", text)
    if "-" in text:
        text = _DIMENSIONS.sub(r"\1D", text)
    if "_" in text or "^" in text:
        text = _SCRIPT.sub(r"\1\2", text.replace("$", ""))
    return text.translate(_MARKUP)


def joined(text: str) -> list[str]:
    """Return names with a number after a hyphen as one word: GPT-4: GPT4, YOLO-v8: YOLOv8."""
    found: list[str] = []
    for joint in _JOINT.finditer(text):
        at = joint.start()
        if name := _NAME_BEFORE.search(text[max(0, at - LONGEST_WORD) : at]):
            found.append(name[0] + joint[1])
    return found


@functools.cache
def analyzers() -> dict[str, tantivy.TextAnalyzer]:
    """Return the analyzers of the index's fields: "stems" and "words" (the same, unstemmed)."""
    from tantivy import Filter, TextAnalyzerBuilder, Tokenizer

    def build(*more: Filter) -> tantivy.TextAnalyzer:
        builder = TextAnalyzerBuilder(Tokenizer.simple())
        first = (Filter.remove_long(LONGEST_WORD + 1), Filter.lowercase(), Filter.ascii_fold())
        for one in (*first, *more):
            builder = builder.filter(one)
        return builder.build()

    return {"words": build(), "stems": build(Filter.stemmer("English"))}


def stems(text: str) -> list[str]:
    """Return the stemmed terms of `text`, a result of `plain`."""
    return analyzers()["stems"].analyze(text)


def words(text: str) -> list[str]:
    """Return the unstemmed terms of `text`, a result of `plain`."""
    return analyzers()["words"].analyze(text)


def name_terms(author: str) -> set[str]:
    """Return the index terms of an author.

    Each word; the whole name and without first names (`van der maaten`, `der maaten`); first and
    last word; and with initials (`y* lecun`, whose star distinguishes it from a paper that gives
    only "Y."). "LeCun, Yann" is read as "Yann LeCun".
    """
    return _name_terms(tuple(words(_straight(author))))


def name_query(author: str) -> list[str]:
    """Return the terms of which a paper by the typed `author` must have one."""
    found = words(_straight(author))
    if not found:
        return []
    whole = " ".join(found)
    if len(found) == 1:
        return [whole]
    if any(len(word) == 1 for word in found[:-1]):
        return [whole, " ".join([*(w + "*" if len(w) == 1 else w for w in found[:-1]), found[-1]])]
    # A paper may give an initial alone.
    return [whole, f"{found[0][0]} {found[-1]}"]


def _straight(author: str) -> str:
    author = plain(author)
    last, comma, first = author.partition(",")
    return f"{first} {last}" if comma and first.strip() else author


@functools.lru_cache(4096)
def _name_terms(found: tuple[str, ...]) -> set[str]:
    terms = set(found)
    if len(found) < 2 or len(found) > 8:
        # Longer names are collaborations, whose words suffice.
        return terms | {" ".join(found[:8])} if found else terms
    for start in range(len(found) - 1):
        terms.add(" ".join(found[start:]))
    first, last = found[0], found[-1]
    terms.add(f"{first} {last}")
    initials = [word[0] + "*" for word in found[:-1]]
    for start in range(1, len(found)):
        terms.add(" ".join([initials[0], *found[start:]]))
    terms.add(" ".join([*initials, last]))
    return terms


_OLD_ID = re.compile(r"^([a-z-]+)/(\d{2})(\d{2})(\d{3})$")
_NEW_ID = re.compile(r"^(\d{4})\.(\d{4,5})$")
_ID_BITS = 41
DAY = 1 << _ID_BITS
"""Step of `order_key` per day."""


def order_key(announced: str, paper_id: str) -> int:
    """Return a number below 2^63 that grows with the day of announcement, then with the id.

    Ids from before April 2007 come first. They grow with month and number; a checksum of the
    archive's name, 12 bits, distinguishes equal numbers.
    """
    try:
        day = date.fromisoformat(announced).toordinal()
    except ValueError:
        day = 1
    if match := _NEW_ID.match(paper_id):
        number = 1 << (_ID_BITS - 1) | int(match[1]) * 100_000 + int(match[2])
    elif match := _OLD_ID.match(paper_id):
        year = int(match[2]) + (1900 if match[2] > "90" else 2000)
        month = (year * 100 + int(match[3])) * 1000 + int(match[4])
        number = month << 12 | zlib.crc32(match[1].encode()) & 0xFFF
    else:
        number = zlib.crc32(paper_id.encode("utf-8", "replace"))
    return day << _ID_BITS | number


def day_keys(first: date | None, last: date | None) -> tuple[int, int]:
    """Return the lowest and the highest `order_key` of papers announced from `first` to `last`."""
    low = first.toordinal() if first else 1
    high = last.toordinal() if last else date.max.toordinal()
    return low << _ID_BITS, (high + 1 << _ID_BITS) - 1


def category_terms(categories: list[str]) -> set[str]:
    """Return the terms of a paper's categories: `cs.cv` and its archive `cs`."""
    lower = [category.lower() for category in categories]
    return set(itertools.chain(lower, (category.partition(".")[0] for category in lower)))
