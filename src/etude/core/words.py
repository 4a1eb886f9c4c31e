"""Stemmers and stop words.

The stemmers are different algorithms, named for what they do. They cannot be merged, since stored
results depend on each of them:

| function | algorithm | stored results |
|---|---|---|
| `porter_stem` | Porter (1980) with NLTK's extensions | ROUGE, which is defined by it |
| `strip_suffix` | one suffix of a short list, then a final e | features of `summaries/ranker.npz` |
| `singular` | endings of plurals | vocabularies of the ranking, `papers-terms-*.npz` |
| `drop_plural_s` | a final s | none: compares words within one process |

The search index is stemmed by tantivy, with Snowball's English algorithm (`papers/search/text.py`).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final


def word_set(text: str) -> frozenset[str]:
    """Return the words of a list that is written as text."""
    return frozenset(text.split())


FUNCTION_WORDS: Final = word_set("a an the this that its and or is of to in on for from with by")
"""The commonest articles, conjunctions, pronouns and prepositions."""

STOP_WORDS: Final = FUNCTION_WORDS | word_set(
    "also although any are as at based be been being between both but can could did do does each "
    "furthermore had has have here how however if into it many may might more moreover most much "
    "no not often only other our over paper should show so some such than their them then there "
    "therefore these they those though thus under us use used using very via was we were what "
    "when where which while who whose will would"
)
"""Words that say nothing about the subject of a paper."""

RANKER_STOP_WORDS: Final = STOP_WORDS | word_set("introduc present propos work")
"""For texts after `strip_suffix`. A feature of `summaries/ranker.npz`: retrain after a change."""

VOCABULARY_STOP_WORDS: Final = STOP_WORDS | word_set(
    "about above across after again al all almost always among another available became because "
    "become before below cannot com demonstrate demonstrates different done due during eg either "
    "else et etc even ever every few further github given having hence http https ie indeed "
    "itself just least less made make must namely neither nor once one onto others otherwise out "
    "own per perhaps propose proposed rather same several shows since still thereby three through "
    "throughout together too toward towards two until up upon various well whereas whether why "
    "within without www yet you your"
)
"""The longer list of `papers.ranking`: words that no reason for a ranking should name."""

UNSPACED: Final = re.compile(
    "["
    "\u0e00-\u0eff"  # Thai, Lao
    "\u0f00-\u0fff"  # Tibetan
    "\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f"  # Myanmar
    "\u1780-\u17ff\u1950-\u19df\u1a20-\u1aaf\uaa80-\uaadf"  # Khmer, Tai scripts
    "\u1b00-\u1b7f\ua980-\ua9df"  # Balinese, Javanese
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3038-\u303b"  # Han: radicals, signs
    "\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # kana
    "\u3100-\u312f\u31a0-\u31bf"  # bopomofo
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # Han
    "\U0001aff0-\U0001b16f\U00020000-\U0003ffff"  # kana and Han beyond the first plane
    "]"
)
"""A character of a script that is written without spaces between words."""

_SUFFIXES: Final = (
    ("ational", "ate"), ("ization", "ize"), ("isation", "ize"), ("ations", "ate"), ("ation", "ate"),
    ("ingly", ""), ("iness", "y"), ("ities", "ity"), ("ness", ""), ("ment", ""), ("ments", ""),
    ("ing", ""), ("ies", "y"), ("ed", ""), ("ly", ""), ("es", ""), ("s", ""),
)  # fmt: skip


@lru_cache(maxsize=100_000)
def strip_suffix(word: str) -> str:
    """Return `word`, lower case, without its ending, roughly: enough to know a word again."""
    if len(word) < 4 or not word.isalpha():
        return word
    for suffix, instead in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= 3 and not word.endswith("ss"):
            word = word[: -len(suffix)] + instead
            break
    return word.rstrip("e")


def singular(word: str) -> str:
    """Return `word`, lower case, without the ending of a plural; still a word of English."""
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies") and len(word) > 4:
        return f"{word[:-3]}y"
    return word[:-2] if word.endswith(("sses", "xes", "ches", "shes")) else word[:-1]


def drop_plural_s(word: str, *, shortest: int) -> str:
    """Return `word` without a final s where it has at least `shortest` letters.

    Unlike `singular` it treats every word alike, so GPUs and GPU are one.
    """
    return word[:-1] if len(word) >= shortest and word.endswith("s") else word


# Porter's steps 2 to 4: (suffix, replacement), the first that fits is the only one tried.
_STEP_2: Final = (
    ("ational", "ate"), ("tional", "tion"), ("enci", "ence"), ("anci", "ance"), ("izer", "ize"),
    ("bli", "ble"), ("alli", "al"), ("entli", "ent"), ("eli", "e"), ("ousli", "ous"),
    ("ization", "ize"), ("ation", "ate"), ("ator", "ate"), ("alism", "al"), ("iveness", "ive"),
    ("fulness", "ful"), ("ousness", "ous"), ("aliti", "al"), ("iviti", "ive"), ("biliti", "ble"),
    ("fulli", "ful"), ("logi", "log"),
)  # fmt: skip
_STEP_3: Final = (
    ("icate", "ic"), ("ative", ""), ("alize", "al"), ("iciti", "ic"), ("ical", "ic"), ("ful", ""),
    ("ness", ""),
)  # fmt: skip
_STEP_4: Final = (
    "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "ou",
    "ism", "ate", "iti", "ous", "ive", "ize",
)  # fmt: skip
_IRREGULAR: Final = {
    "skies": "sky", "dying": "die", "lying": "lie", "tying": "tie", "news": "news",
    "innings": "inning", "inning": "inning", "outings": "outing", "outing": "outing",
    "cannings": "canning", "canning": "canning", "howe": "howe", "proceed": "proceed",
    "exceed": "exceed", "succeed": "succeed", "sky": "sky",
}  # fmt: skip


@lru_cache(maxsize=100_000)
def porter_stem(word: str) -> str:
    """Return the Porter stem of `word`, lower case.

    M. F. Porter, "An algorithm for suffix stripping", Program 14(3), 1980, with the departures of
    NLTK's default mode, which ROUGE scores in Python are computed with: irregular words,
    four-letter words in -ies and -ied, y after a consonant only, -fulli and -logi, and an e
    restored after stems of two letters.
    """
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) <= 2:
        return word
    word = _past_and_participle(_plural(word))
    if word.endswith("y") and len(word) > 2 and _consonant(word, len(word) - 2):
        word = f"{word[:-1]}i"
    word = _double_suffix(word)
    word = _replaced(word, _STEP_3)
    word = _single_suffix(word)
    if word.endswith("e"):
        stem = word[:-1]
        measure = _measure(stem)
        if measure > 1 or (measure == 1 and not _short_syllable(stem)):
            word = stem
    return word[:-1] if word.endswith("ll") and _measure(word[:-1]) > 1 else word


def _plural(word: str) -> str:
    """Step 1a."""
    if word.endswith("ies"):
        return word[:-1] if len(word) == 4 else word[:-2]
    if word.endswith("sses"):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def _past_and_participle(word: str) -> str:
    """Step 1b."""
    if word.endswith("ied"):
        return word[:-1] if len(word) == 4 else word[:-2]
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    for suffix in ("ed", "ing"):
        stem = word.removesuffix(suffix)
        if stem != word and "v" in _shape(stem):
            break
    else:
        return word
    if stem.endswith(("at", "bl", "iz")):
        return f"{stem}e"
    if len(stem) > 1 and stem[-1] == stem[-2] and _consonant(stem, len(stem) - 1):
        return stem if stem[-1] in "lsz" else stem[:-1]
    return f"{stem}e" if _measure(stem) == 1 and _short_syllable(stem) else stem


def _double_suffix(word: str) -> str:
    """Step 2."""
    while word.endswith("alli") and _measure(word[:-4]) > 0:
        word = word[:-2]
    if word.endswith("logi"):  # the measure counts the l
        return word[:-1] if _measure(word[:-3]) > 0 else word
    return _replaced(word, _STEP_2)


def _single_suffix(word: str) -> str:
    """Step 4."""
    for suffix in _STEP_4:
        if word.endswith(suffix):
            stem = word[: -len(suffix)]
            removed = _measure(stem) > 1 and (suffix != "ion" or stem.endswith(("s", "t")))
            return stem if removed else word
    return word


def _replaced(word: str, rules: tuple[tuple[str, str], ...]) -> str:
    """Apply the first rule whose suffix fits, where what stands before it has a measure above 0."""
    for suffix, instead in rules:
        if word.endswith(suffix):
            stem = word[: -len(suffix)]
            return stem + instead if _measure(stem) > 0 else word
    return word


def _shape(word: str) -> str:
    """Return a letter for each of `word`: c for consonants, v for vowels."""
    shape = ""
    for letter in word:
        vowel = letter in "aeiou" or (letter == "y" and shape.endswith("c"))
        shape += "v" if vowel else "c"
    return shape


def _consonant(word: str, at: int) -> bool:
    return _shape(word[: at + 1])[-1] == "c"


def _measure(word: str) -> int:
    """Return how often a vowel is followed by a consonant, Porter's m."""
    return _shape(word).count("vc")


def _short_syllable(word: str) -> bool:
    """Whether `word` is vowel, consonant; or ends in consonant, vowel, consonant but w, x, y."""
    shape = _shape(word)
    return shape == "vc" or (shape.endswith("cvc") and word[-1] not in "wxy")
