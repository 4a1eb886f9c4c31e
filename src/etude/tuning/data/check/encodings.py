"""Checks and repair of damaged characters.

Mojibake is UTF-8 read as Windows-1252: `Ã©` for `é`. It is undone where a run of characters, as
Windows-1252 bytes, is valid UTF-8 for letters, punctuation or pictures in common use; other runs of
those characters (`«MARCHÉ»` holds one) are left alone.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from etude.tuning.data.check.findings import Entry, Finding, excerpt, found

_RUN = re.compile(
    r"[\u0080-\u00ff\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc"
    r"\u2013\u2014\u2018-\u201a\u201c-\u201e\u2020-\u2022\u2026\u2030\u2039\u203a"
    r"\u20ac\u2122]{2,}"
)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_INVISIBLE = re.compile("[\u200b\u2060\ufeff\u00ad]")
_BIDI = re.compile("[\u202a-\u202e\u2066-\u2069]")


def repaired(text: str) -> str:
    """Return a text without mojibake, byte order marks, control characters, in form NFC."""
    text = _RUN.sub(lambda run: _undone(run[0]), text)
    text = _CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    return unicodedata.normalize("NFC", text.replace("\ufeff", ""))


def _undone(run: str) -> str:
    """Return what a run of characters was before it was read as Windows-1252, if it was."""
    octets = bytearray()
    for character in run:
        try:
            octets += character.encode("cp1252")
        except UnicodeEncodeError:
            if ord(character) > 0xFF:
                return run
            octets.append(ord(character))  # the five bytes that Windows-1252 leaves undefined
    try:
        before = octets.decode("utf-8")
    except UnicodeDecodeError:
        return run
    return before if all(map(_common, before)) else run


def _common(character: str) -> bool:
    code = ord(character)
    return (
        0xA0 <= code <= 0x17F  # letters of western and central Europe
        or 0x2010 <= code <= 0x2027  # dashes, quotes, dots
        or 0x2030 <= code <= 0x205E
        or code in (0x20AC, 0x2122)
        or 0x390 <= code <= 0x45F  # Greek, Cyrillic
        or 0x3040 <= code <= 0x30FF
        or 0x4E00 <= code <= 0x9FFF
        or 0x1F300 <= code <= 0x1FAFF
    )


class Encodings:
    """Damage to characters."""

    def __init__(self) -> None:
        self.mojibake = Finding(
            "mojibake",
            "error",
            "text decoded with the wrong encoding",
            "the model learns to write the damaged text",
            fix="restores the original text",
        )
        self.lost = Finding(
            "lost-characters",
            "error",
            "replacement characters (U+FFFD) for undecodable bytes",
            "the original characters are lost; read the source again as UTF-8",
        )
        self.control = Finding(
            "control-characters",
            "warning",
            "control characters",
            "each is a rare token, learnt from few rows",
            fix="removes them",
        )
        self.marks = Finding(
            "invisible-characters",
            "note",
            "byte order marks, zero-width spaces or soft hyphens inside the text",
            "words that look the same become different tokens",
            fix="removes byte order marks, leaves the others",
        )
        self.direction = Finding(
            "direction-marks",
            "note",
            "marks that change the text direction",
            "displayed text differs from what the model reads; inspect the rows",
        )
        self.decomposed = Finding(
            "decomposed",
            "note",
            "letters written as letter and accent (not form NFC)",
            "they look the same but are different tokens",
            fix="composes them",
        )
        self.returns = Finding(
            "line-ends",
            "note",
            "Windows line ends (carriage returns)",
            "the model learns two kinds of line ends",
            fix="writes Unix line ends",
        )
        self._plain_lines = 0

    def see(self, entry: Entry) -> None:
        """Look at every text of an entry."""
        for text in entry.texts:
            self._look(text, entry.origin)

    def _look(self, text: str, origin: str) -> None:
        if text.isascii():
            if "\r" in text:
                self.returns.add(origin, origin)
            elif _CONTROL.search(text):
                self._add(self.control, _CONTROL.search(text), text, origin)
            return
        for run in _RUN.finditer(text):
            if _undone(run[0]) != run[0]:
                self._add(self.mojibake, run, text, origin)
                break
        if "\ufffd" in text:
            self.lost.add(origin, f"{origin}: {excerpt(text, text.index(chr(0xFFFD)))}")
        if "\r" in text:
            self.returns.add(origin, origin)
        hidden = _CONTROL.search(text)
        if hidden and not self._is_mojibake(text, hidden.start()):
            self._add(self.control, hidden, text, origin)
        if mark := _INVISIBLE.search(text):
            self.marks.add(origin, f"{origin}: U+{ord(mark[0]):04X} at {mark.start()}")
        if turn := _BIDI.search(text):
            self.direction.add(origin, f"{origin}: U+{ord(turn[0]):04X} at {turn.start()}")
        if not unicodedata.is_normalized("NFC", text):
            self.decomposed.add(origin, f"{origin}: {excerpt(text)}")

    def _is_mojibake(self, text: str, place: int) -> bool:
        """Tell whether a control character is one byte of a run that is put right as a whole."""
        return any(
            run.start() <= place < run.end() and _undone(run[0]) != run[0]
            for run in _RUN.finditer(text)
        )

    def _add(self, finding: Finding, match: re.Match[str] | None, text: str, origin: str) -> None:
        start = match.start() if match else 0
        shown = "".join(
            c if c.isprintable() else f"<{ord(c):02x}>" for c in text[start : start + 24]
        )
        finding.add(origin, f"{origin}: {shown}")

    def findings(self) -> Iterable[Finding]:
        """Return what is damaged."""
        return found(
            self.mojibake,
            self.lost,
            self.control,
            self.returns,
            self.marks,
            self.direction,
            self.decomposed,
        )
