"""Words of titles and abstracts as the index sees them.

Names of models carry versions and glue words together: somebody who types `YOLO` wants YOLOv8, YOLO-World and
yolov11n. Each such word is indexed whole and by its parts.
"""

from __future__ import annotations

import re
import unicodedata

_WORD = re.compile(r"[^\W_]+")
_VERSION = re.compile(r"^([a-z]{2,}?)(?:v|x|r)?\d+[a-z0-9]*$")
_HUMP = re.compile(r"[A-Z]{2,}(?=[A-Z][a-z])|[A-Z]?[a-z]{2,}|[A-Z]{2,}|\d+")
_HIDDEN = {"Cc", "Cf", "Cs", "Co"}
LONGEST_WORD = 40
"""Longer runs of letters are no words; tantivy leaves them out, too."""


def shown(text: str) -> str:
    """`text` on one line without control, format and direction marks, fit for a terminal or a page."""
    kept = "".join(
        " " if letter.isspace() else letter
        for letter in text
        if letter.isspace() or unicodedata.category(letter) not in _HIDDEN
    )
    return " ".join(kept.split())


def folded(text: str) -> str:
    """`text` in lower case without accents."""
    split = unicodedata.normalize("NFKD", text)
    return "".join(letter for letter in split if not unicodedata.combining(letter)).casefold()


def parts(text: str) -> list[str]:
    """The parts of the glued words in `text`, lower case: yolov11n gives yolo, FlashAttention flash, attention."""
    found: dict[str, None] = {}
    for match in _WORD.finditer(text):
        word = match[0]
        if len(word) > LONGEST_WORD or (word.islower() and word.isalpha()):
            continue
        lower = word.lower()
        version = _VERSION.match(lower)
        if version:
            found[version[1]] = None
        humps = [piece.lower() for piece in _HUMP.findall(word)]
        if len(humps) > 1:
            for piece in humps:
                if len(piece) > 2 and not piece.isdigit() and piece != lower:
                    found[piece] = None
    return list(found)
