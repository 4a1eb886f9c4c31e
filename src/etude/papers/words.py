"""Words of titles and abstracts as the index sees them.

Names of models carry versions and glue words together: somebody who types `YOLO` wants YOLOv8,
YOLO-World and yolov11n. Each such word is indexed whole and by its parts.
"""

from __future__ import annotations

import re
import unicodedata

_WORD = re.compile(r"[^\W_]+")
_VERSION = re.compile(r"^([a-z]{2,}?)v?\d+[a-z0-9]*$")
_HUMP = re.compile(r"[A-Z]{2,}(?=[A-Z][a-z])|[A-Z]?[a-z]{2,}|[A-Z]{2,}")
_SHORTEST_PART = 4
"""Shorter humps are rarely words: LoRA is not about "ra"."""
_HIDDEN = {"Cc", "Cf", "Cs", "Co"}
LONGEST_WORD = 40
"""Longer runs of letters are no words; tantivy leaves them out, too."""


def shown(text: str) -> str:
    """`text` on one line without control and direction marks, fit for a terminal."""
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
    """Parts of the glued words in `text`, lower case: yolov11n: yolo, BERTScore: bert, score."""
    found: dict[str, None] = {}
    for match in _WORD.finditer(text):
        word = match[0]
        if len(word) > LONGEST_WORD or (word.islower() and word.isalpha()):
            continue
        version = _VERSION.match(word.lower())
        if version:
            found[version[1]] = None
            word = word[: version.end(1)]
        pieces = [piece.lower() for piece in _HUMP.findall(word) if len(piece) >= _SHORTEST_PART]
        found.update(dict.fromkeys(piece for piece in pieces if piece != word.lower()))
    return list(found)
