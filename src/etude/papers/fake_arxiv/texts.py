"""Text as arXiv's servers write it: XML, names with TeX's accents, dates."""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime
from email.utils import format_datetime

_SIGNS = {
    "\u0300": "\\`",
    "\u0301": "\\'",
    "\u0302": "\\^",
    "\u0303": "\\~",
    "\u0308": '\\"',
    "\u0304": "\\=",
    "\u0307": "\\.",
}
_WORDS = {
    "\u0306": "u",
    "\u030c": "v",
    "\u030b": "H",
    "\u0327": "c",
    "\u0323": "d",
    "\u030a": "r",
    "\u0328": "k",
}
_LETTERS = {"ø": "\\o", "Ø": "\\O", "ł": "\\l", "Ł": "\\L", "ß": "\\ss", "æ": "\\ae", "ı": "\\i"}
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def xml(text: str) -> str:
    """`text` for an XML element or attribute; what XML cannot hold is left out."""
    kept = _NOT_XML.sub("", text)
    return (
        kept.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
    )


def tex(name: str) -> str:
    """A name with its accents as TeX has them."""
    if name.isascii():
        return name
    found: list[str] = []
    for letter in name:
        if letter in _LETTERS:
            found.append(f"{{{_LETTERS[letter]}}}")
            continue
        base, *marks = unicodedata.normalize("NFD", letter)
        if len(marks) == 1 and marks[0] in _SIGNS:
            found.append(f"{_SIGNS[marks[0]]}{base}")
        elif len(marks) == 1 and marks[0] in _WORDS:
            found.append(f"\\{_WORDS[marks[0]]}{{{base}}}")
        else:
            found.append(letter)
    return "".join(found)


def iso(moment: datetime) -> str:
    """A moment as OAI-PMH and the query API write it."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def mail_date(moment: datetime) -> str:
    """A moment as RSS writes it, in the zone that it has."""
    return format_datetime(moment)
