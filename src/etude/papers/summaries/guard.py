"""Guard: checks a model's summary against title and abstract before it is shown.

Every number and every capitalised name must be in the title or abstract, as must most of the
other words, and the line must be plain, of at most 30 words, and not the title. A rejected line is
not repaired: the extracted sentence is shown instead, with the reason. The check is lexical: a line
that combines the abstract's words into a false statement can pass.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from etude.core.words import RANKER_STOP_WORDS, drop_plural_s, strip_suffix, word_set
from etude.papers.latex_symbols import words
from etude.papers.latex_text import latex_to_text
from etude.papers.summaries.cut import MOST_WORDS
from etude.papers.summaries.extractive import LONGEST_LETTERS, says_title
from etude.papers.summaries.features import tokens
from etude.papers.words import folded, shown

FEWEST_WORDS: Final = 4
KNOWN_SHARE: Final = 0.5
"""Minimum share of a line's content words that must be in the paper."""

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_SPELLED: Final = {
    word: str(value)
    for value, word in enumerate(
        words("zero one two three four five six seven eight nine ten eleven twelve")
    )
} | {"hundred": "100", "thousand": "1000", "million": "1000000", "billion": "1000000000"}
_SMALL: Final = frozenset({"one", "zero"})
"""Spelled-out numbers that rarely state a quantity."""
_WORD = re.compile(r"[^\W_]+")
_LABEL = re.compile(
    r"^\W*(?:tl\s*;?\s*dr|(?:one[- ]sentence |short )?summary|answer|output)\W*:[\s*]*",
    re.IGNORECASE,
)
_QUOTES = "\"'“”‘’"
_MARKUP = re.compile(r"</?[a-zA-Z!][^>]*>|<\||\|>|\*\*|__|```|^#+ |\[[^\]]*\]\(|\\[a-zA-Z]")
_ODD: Final = "<>{}\\`|*#^_$"
_REFUSAL = re.compile(
    r"\bas an? (?:ai|language model|assistant)\b|\bi(?:'m| am) (?:sorry|unable|an ai)\b"
    r"|\bi (?:can(?:no|')t|cannot|could not|do not have)\b|^(?:sure|certainly|of course|okay)\b"
    r"|\bhere(?: is|'s) (?:a|the|your)\b.{0,30}\bsummary\b"
    r"|\bthe (?:abstract|summary|text) (?:you|above|provided|is)\b"
    r"|\b(?:system|user|assistant)\s*:|\bignore (?:all|the|previous)\b",
    re.IGNORECASE,
)
_OPENERS: Final = word_set(
    "a an the this that these those we our it its in on at by to for of from with without "
    "through using via and or but if when while where how what why which as is are can "
    "does do new novel propose proposed proposes proposing introduce introduced "
    "introduces introducing present presented presents presenting show showing shows "
    "study studying studies learn learning improve improving improves train training "
    "analyze analyzing analysis describe describing explore exploring investigate "
    "investigating demonstrate demonstrating develop developing method methods approach "
    "paper model models first recent one two three some many most all simple efficient "
    "effective fast better towards understanding evaluating evaluation use used there "
    "here they their however instead based both given large small i"
)
"""Common words that may be capitalised at the start of a sentence."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One reason to reject a line."""

    kind: str
    """A key of `origin.KINDS`."""
    detail: str = ""
    """The offending number, name or word."""


def tidied(answer: str) -> str:
    """Return the first non-empty line of a model's answer, without a label."""
    for line in answer[:4000].splitlines():
        text = latex_to_text(_LABEL.sub("", shown(line)))
        if len(text) > 1 and text[0] in _QUOTES and text[-1] in _QUOTES:
            text = text[1:-1].strip()
        if text:
            return text
    return ""


class Guard:
    """Checks summaries of one paper.

    Args:
        title: as the source wrote it.
        abstract: likewise.
    """

    def __init__(self, title: str, abstract: str) -> None:
        self.title = latex_to_text(title)
        self._source = f"{self.title} {latex_to_text(abstract)}"
        plain = folded(self._source)
        self._numbers = _numbers(plain) | _numbers(folded(f"{title} {abstract}"))
        words = _WORD.findall(plain)
        self._words = {_singular(word) for word in words}
        self._numbers |= {_SPELLED[word] for word in words if word in _SPELLED}
        self._stems = {strip_suffix(word) for word in tokens(self._source)}

    def faults(self, line: str) -> list[Fault]:
        """Return the faults of `line`; none if it may be shown."""
        words = line.split()
        if not words:
            return [Fault("empty")]
        found: list[Fault] = []
        if len(words) < FEWEST_WORDS:
            found.append(Fault("short"))
        if len(words) > MOST_WORDS or len(line) > LONGEST_LETTERS:
            found.append(Fault("long"))
        if says_title(line, self.title):
            found.append(Fault("title"))
        if _MARKUP.search(line) or any(c in line and c not in self._source for c in _ODD):
            found.append(Fault("markup"))
        if _REFUSAL.search(line):
            found.append(Fault("refusal"))
        if _repeats(words):
            found.append(Fault("repeats"))
        found += [Fault("number", number) for number in self.invented_numbers(line)]
        found += [Fault("name", name) for name in self.invented_names(line)]
        if self._foreign(line):
            found.append(Fault("other"))
        return found

    def invented_numbers(self, line: str) -> list[str]:
        """Return the numbers of `line`, in digits or spelled, that are not in the paper."""
        plain = folded(line)
        digits = [
            number for number in _NUMBER.findall(plain) if _value(number) not in self._numbers
        ]
        spelled = [
            word
            for word in _WORD.findall(plain)
            if word in _SPELLED and word not in _SMALL and _SPELLED[word] not in self._numbers
        ]
        return digits + spelled

    def invented_names(self, line: str) -> list[str]:
        """Return the capitalised words of `line` that are not in the paper in any case."""
        found: list[str] = []
        for match in _WORD.finditer(line):
            word = match[0]
            if not any(letter.isupper() for letter in word):
                continue
            before = line[: match.start()].rstrip(_QUOTES + " (")
            opens = not before or before.endswith((".", ":", "?", "!", "—"))
            titled = word[1:].islower() or len(word) == 1
            plain = folded(word)
            if opens and titled and plain in _OPENERS:
                continue
            if _singular(plain) not in self._words:
                found.append(word)
        return found

    def _foreign(self, line: str) -> bool:
        """Return whether too few content words are the paper's."""
        said = [strip_suffix(word) for word in tokens(line)]
        telling = [word for word in said if word not in RANKER_STOP_WORDS and not word.isdigit()]
        known = sum(word in self._stems for word in telling)
        return not telling or known < KNOWN_SHARE * len(telling)


def _numbers(text: str) -> set[str]:
    return {_value(number) for number in _NUMBER.findall(text)}


def _value(number: str) -> str:
    """Return a normalised number: 1,000 and 1000, 0.50 and 0.5 are the same."""
    bare = re.sub(r",(?=\d{3}(?:\D|$))", "", number).replace(",", ".")
    if bare.count(".") == 1:
        bare = bare.rstrip("0").rstrip(".")
    return bare.lstrip("0") or "0"


def _singular(word: str) -> str:
    return drop_plural_s(word, shortest=3)


def _repeats(words: list[str]) -> bool:
    """Return whether a trigram is repeated, or a word comes three times in a row."""
    bare = [word.strip(".,;:").lower() for word in words]
    runs = [tuple(bare[n : n + 3]) for n in range(len(bare) - 2)]
    return len(runs) - len(set(runs)) > 0 or any(len(set(run)) == 1 for run in runs)
