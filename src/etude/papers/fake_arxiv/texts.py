"""Text in the form of arXiv's servers: XML, names with TeX accents, dates."""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime
from email.utils import format_datetime

from etude.papers.latex_symbols import ACCENTS_BY_MARK, LETTERS

_LETTERS = {LETTERS[command]: command for command in ("o", "O", "l", "L", "ss", "ae", "i")}
"""Letters that arXiv writes as commands; others are unchanged."""
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def xml(text: str) -> str:
    """Return `text` escaped for XML, without characters that XML forbids."""
    kept = _NOT_XML.sub("", text)
    return (
        kept.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
    )


def tex(name: str) -> str:
    """Return a name with TeX accents."""
    if name.isascii():
        return name
    found: list[str] = []
    for letter in name:
        if letter in _LETTERS:
            found.append(f"{{\\{_LETTERS[letter]}}}")
            continue
        base, *marks = unicodedata.normalize("NFD", letter)
        command = ACCENTS_BY_MARK.get(marks[0]) if len(marks) == 1 else None
        if command:
            found.append(f"\\{command}{{{base}}}" if command.isalpha() else f"\\{command}{base}")
        else:
            found.append(letter)
    return "".join(found)


def iso(moment: datetime) -> str:
    """Return a time as in OAI-PMH and the query API."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def mail_date(moment: datetime) -> str:
    """Return a time as in RSS, in its own zone."""
    return format_datetime(moment)
