"""Tokenisation of compound words, and folding of text, for index and display.

Names of models include versions and compounds: a search for `YOLO` should find YOLOv8, YOLO-World
and yolov11n. Each such word is indexed whole and by its parts.
"""

from __future__ import annotations

import functools
import re
import unicodedata

_WORD = re.compile(r"[^\W_]+")
_VERSION = re.compile(r"^([a-z]{2,}?)v?\d+[a-z0-9]*$")
_VARIANT = re.compile(r"^([A-Z]{4,})[A-Za-z]$")
"""Names that also occur with one more letter: YOLOX and YOLOE, but not SWIF of SWIFT."""
_HUMP = re.compile(r"[A-Z]{2,}(?=[A-Z][a-z])|[A-Z]?[a-z]{2,}|[A-Z]{2,}")
_SHORTEST_PART = 4
"""Minimum length of a camel-case part: "ra" of LoRA is not a word."""
_HIDDEN = {"Cc", "Cf", "Cs", "Co"}
LONGEST_WORD = 40
"""Maximum length of a word; tantivy drops longer ones, too."""

_MOST_RUNS = 1 << 17
_plain_runs: set[str] = set()
"""Cache of tokens without compound words: 95 % of all tokens, which recur often."""


def shown(text: str) -> str:
    """Return `text` on one line without control and direction marks, safe for a terminal."""
    if text.isascii() and text.isprintable():  # fast path for most texts
        return " ".join(text.split())
    kept = "".join(
        " " if letter.isspace() else letter
        for letter in text
        if letter.isspace() or unicodedata.category(letter) not in _HIDDEN
    )
    return " ".join(kept.split())


def without_controls(line: str) -> str:
    """Return a line without control and direction marks, its spaces and tabs unchanged."""
    return "".join(
        letter for letter in line if letter == "\t" or unicodedata.category(letter) not in _HIDDEN
    ).rstrip()


def folded(text: str) -> str:
    """Return `text` in lower case without accents."""
    split = unicodedata.normalize("NFKD", text)
    return "".join(letter for letter in split if not unicodedata.combining(letter)).casefold()


def parts(text: str) -> list[str]:
    """Return the lower-case parts of compounds in `text`: yolo for yolov11n, bert for BERTScore."""
    return list(dict.fromkeys(part for word in glued(text) for part in word))


def glued(text: str) -> list[list[str]]:
    """Return the parts of each distinct compound word of `text`."""
    found: dict[str, tuple[str, ...]] = {}
    for run in text.split():
        if run in _plain_runs:
            continue
        plain = len(run) <= LONGEST_WORD
        for word in _WORD.findall(run):
            if pieces := _pieces(word):
                found[word] = pieces
                plain = False
        if plain:
            if len(_plain_runs) >= _MOST_RUNS:
                _plain_runs.clear()
            _plain_runs.add(run)
    return [list(pieces) for pieces in found.values()]


@functools.lru_cache(1 << 15)
def _pieces(word: str) -> tuple[str, ...]:
    if len(word) > LONGEST_WORD or word.isdigit():
        return ()
    if variant := _VARIANT.match(word):
        return (variant[1].lower(),)
    if word.isalpha() and (word.islower() or word.isupper() or word.istitle()):
        return ()
    pieces: list[str] = []
    stem = word
    version = _VERSION.match(word.lower())
    if version:
        pieces.append(version[1])
        stem = word[: version.end(1)]
    humps = [piece.lower() for piece in _HUMP.findall(stem) if len(piece) >= _SHORTEST_PART]
    pieces += [piece for piece in humps if piece != stem.lower() and piece not in pieces]
    return tuple(pieces)
