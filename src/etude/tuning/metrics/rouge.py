"""ROUGE (Lin 2004): how many words, pairs of words or words in order two texts share.

On ASCII text the scores are those of Google's `rouge-score` package with its Porter stemmer. Other
text is cut into words of Unicode letters, marks and digits, and scripts that are written without
spaces (Chinese, Japanese, Thai, ...) into characters, so that the measure works in every language;
`rouge-score` drops all that is not ASCII.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

from etude.core.words import UNSPACED, porter_stem
from etude.tuning.metrics.lcs import longest_common_subsequence

_ASCII_WORD = re.compile(r"[A-Za-z0-9]+")
_LONGEST_UNSTEMMED: Final = 3


@dataclass(frozen=True)
class Word:
    """A word of a text."""

    key: str
    """What is compared: lower case, stemmed, in the form NFKC."""
    start: int
    end: int
    """Its place in the text, in characters."""


@dataclass(frozen=True)
class Score:
    """Shares from 0 to 1."""

    precision: float
    """Of the candidate's units, those that the reference has."""
    recall: float
    """Of the reference's units, those that the candidate has."""

    @property
    def fmeasure(self) -> float:
        """Return the harmonic mean of both."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total > 0 else 0.0


def split_words(text: str) -> list[Word]:
    """Return the words of `text` in order."""
    if text.isascii():
        spans = [match.span() for match in _ASCII_WORD.finditer(text)]
    else:
        spans = _unicode_spans(text)
    return [Word(_key(text[start:end]), start, end) for start, end in spans]


def rouge_n(reference: str, candidate: str, n: int) -> Score:
    """Return ROUGE-N: shared runs of `n` words, each counted as often as both texts have it."""
    wanted, found = _ngrams(reference, n), _ngrams(candidate, n)
    return _score((wanted & found).total(), wanted.total(), found.total())


def rouge_l(reference: str, candidate: str) -> Score:
    """Return ROUGE-L: words of the longest common subsequence."""
    wanted = [word.key for word in split_words(reference)]
    found = [word.key for word in split_words(candidate)]
    return _score(len(longest_common_subsequence(found, wanted)), len(wanted), len(found))


def best_of(measure: Callable[[str, str], Score], references: Sequence[str], text: str) -> float:
    """Return the best F-measure of a text over several references, as `rouge-score` does.

    Args:
        measure: `rouge_l`, or `rouge_n` of some n.
        references: at least one.
        text: the candidate.
    """
    return max(measure(reference, text).fmeasure for reference in references)


def _score(shared: int, wanted: int, found: int) -> Score:
    return Score(shared / max(found, 1), shared / max(wanted, 1))


def unspaced_share(texts: Iterable[str]) -> float:
    """Return the share of letters that are of scripts written without spaces, 0 to 1."""
    kinds = Counter(kind for text in texts for kind in map(_kind, text))
    letters = kinds["letter"] + kinds["character"]
    return kinds["character"] / letters if letters else 0.0


def _ngrams(text: str, n: int) -> Counter[tuple[str, ...]]:
    keys = [word.key for word in split_words(text)]
    return Counter(tuple(keys[at : at + n]) for at in range(len(keys) - n + 1))


def _key(word: str) -> str:
    if not word.isascii():
        return unicodedata.normalize("NFKC", word).lower()
    word = word.lower()
    return porter_stem(word) if len(word) > _LONGEST_UNSTEMMED else word


def _unicode_spans(text: str) -> list[tuple[int, int]]:
    """Return where words are; a character of an unspaced script is one, with its marks."""
    spans: list[tuple[int, int]] = []
    grows = False  # whether the last span takes in a letter that follows it
    for at, character in enumerate(text):
        kind = _kind(character)
        adjoins = bool(spans) and spans[-1][1] == at
        if adjoins and (kind == "mark" or (kind == "letter" and grows)):
            spans[-1] = spans[-1][0], at + 1
        elif kind in ("letter", "character"):
            spans.append((at, at + 1))
            grows = kind == "letter"
    return spans


@lru_cache(maxsize=1 << 14)
def _kind(character: str) -> Literal["letter", "mark", "character", ""]:
    category = unicodedata.category(character)[0]
    if category == "M":
        return "mark"
    if category not in "LN":
        return ""
    return "character" if UNSPACED.match(character) else "letter"
