r"""Parsing of the XML, names and dates in arXiv's responses.

Titles and abstracts are left unchanged. Names of authors are normalised, since
the same person appears as ``Andr\'e`` in a feed and as ``André`` from the query API.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, date, datetime
from email.utils import parsedate_to_datetime
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from etude.papers.arxiv.rate_limited_client import DamagedError
from etude.papers.latex_symbols import ACCENT_LETTERS, ACCENT_SIGNS, ACCENTS, LETTERS

_LETTER = re.compile(
    rf"\\({'|'.join(sorted(LETTERS, key=len, reverse=True))})(?![A-Za-z])(?:\{{\}}| (?=\S))?"
)
_ACCENT = re.compile(
    rf"\\(?:(?P<sign>[{re.escape(ACCENT_SIGNS)}])\s?"
    rf"|(?P<word>[{ACCENT_LETTERS}])(?:\s+|(?=\{{)))(?:\{{(?P<in>\w)\}}|(?P<bare>\w))"
)
_BRACED = re.compile(r"\{([^{}\\]{0,80})\}")
_NOTE = re.compile(r"\([^()]*\)")
_AND = re.compile(r"(?:,\s*|\s+)and\s+|\s*,\s*|\s+&\s+|\s*;\s*")
_SUFFIX = re.compile(r"^(?:Jr|Sr|II|III|IV)\.?$", re.IGNORECASE)


def parsed(body: bytes, what: str) -> Element:
    """Return the root of an XML document, without entities, doctypes or external references.

    Raises:
        DamagedError: it is truncated, not XML, or uses a forbidden feature.
    """
    try:
        return fromstring(body, forbid_dtd=True, forbid_entities=True, forbid_external=True)
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:
        raise DamagedError(f"{what} is not a complete XML document ({error})"[:200]) from error


def plain_name(name: str) -> str:
    """Return a name on one line, with TeX accents as composed Unicode letters."""
    if "\\" in name:
        name = _LETTER.sub(lambda match: LETTERS[match[1]], name)
        name = _BRACED.sub(r"{\1}", name)
        name = _ACCENT.sub(_accented, name)
        name = name.replace("\\-", "").replace("\\ ", " ").replace("\\&", "&")
    if "{" in name:
        for _ in range(3):
            name = _BRACED.sub(r"\1", name)
    name = " ".join(name.replace("~", " ").split())
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _accented(match: re.Match[str]) -> str:
    letter = match["in"] or match["bare"]
    letter = {"ı": "i", "ȷ": "j"}.get(letter, letter)
    return unicodedata.normalize("NFC", letter + ACCENTS[match["sign"] or match["word"]])


def names_in(text: str) -> tuple[str, ...]:
    """Return the authors in a string of feeds or `arXivRaw`, without affiliations.

    ``"A. One (1 and 2), B. Two and C. Three ((1) Here, (2) There)"`` has three.
    """
    for _ in range(4 if "(" in text else 0):
        shorter = _NOTE.sub(" ", text)
        if shorter == text:
            break
        text = shorter
    if "(" in text:  # an unclosed parenthesis runs to the end
        text = text.partition("(")[0]
    names: list[str] = []
    for part in _AND.split(" ".join(text.replace(")", " ").split())):
        name = plain_name(part)
        if not name:
            continue
        if names and _SUFFIX.match(name):
            names[-1] = f"{names[-1]} {name}"
        else:
            names.append(name)
    return tuple(names)


def moment(text: str | None) -> datetime | None:
    """Parse a time in UTC from ``2024-01-01T00:00:00Z``, a bare day, or RFC 822, else None."""
    if not text or not text.strip():
        return None
    text = text.strip()
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        try:
            found = parsedate_to_datetime(text)
        except (ValueError, IndexError):
            return None
    return found.replace(tzinfo=found.tzinfo or UTC).astimezone(UTC)


def day(text: str | None) -> date | None:
    """Parse a day from YYYY-MM-DD, or return None."""
    try:
        return date.fromisoformat((text or "").strip())
    except ValueError:
        return None


def says_withdrawn(comment: str | None, abstract: str | None = None) -> bool:
    """Whether a sentence of the comment, or the first one of the abstract, withdraws the paper."""
    return bool(
        (comment and _WITHDRAWN.search(comment))
        or (abstract and _WITHDRAWN.match(abstract.strip()))
    )


_WITHDRAWN = re.compile(
    r"(?:^|(?<=[.;:!?(*\n]))\s{0,8}(?:"
    r"(?:(?:this|the|our)\s+)?"
    r"(?:(?:arXiv|paper|article|submission|manuscript|work|version|preprint)\s+){1,2}"
    r"(?:(?:has|have|is|was|been|being|temporarily|hereby)\s+){0,3}(?:withdrawn|retracted)\b"
    r"|(?:withdrawn|retracted)(?=\s*(?:$|[.,;:!)]|(?:by|due|because|for|as|from|since|pending)\b)))",
    re.IGNORECASE,
)
