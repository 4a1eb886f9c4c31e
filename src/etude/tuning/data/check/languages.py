"""Languages that do not belong: by script, and for Latin letters by the words that hold sentences.

A text is taken for a language where its most frequent small words (articles, pronouns, particles)
are of four kinds at least, one word in eight, and half again as many as those of any other
language. Short texts and code are no language. This tells apart the languages below on a sentence
or two; it is no identification of every language.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable

from etude.tuning.data.check.findings import Entry, Finding, excerpt

_WORDS = {
    "English": "the of and to in is that it for was on are with as be at this have from or by not "
    "you he she they we his her their what which how will can if",
    "German": "der die das und ist nicht ich sie es ein eine zu den mit auf für im dem des von "
    "wird auch sich wie aber oder bei sind war haben nach wenn",
    "French": "le la les des une est et que qui dans pour pas sur au avec ce il elle sont plus "
    "par nous vous cette mais ou je du leur fait être",
    "Spanish": "el la los las que es una por con para del se no su al lo como más pero sus le ya "
    "este sí porque esta son cuando muy sin",
    "Italian": "il che di è una per non con del della sono nel gli alla dei ma anche più come si "
    "questo ha lo dal le al da una cui",
    "Portuguese": "o que não uma os com para do da em é dos das por mais se como mas ao ele sua "
    "foi são ou quando muito nos já também",
    "Dutch": "de het een van en is dat niet op te zijn voor met die aan er maar om ook als bij "
    "wordt naar hij ze door deze geen nog",
    "Swedish": "och att det som en på är av för med till den har inte om ett han men var jag från "
    "så kan när eller vi de",
    "Polish": "nie się na jest że do to jak co po ale przez jego tak dla od za są czy być ten już "
    "tylko oraz lub które może",
    "Turkish": "bir ve bu için ile da de çok ne daha gibi kadar ama olarak olan var değil sonra "
    "her en mi ben o şey",
}
_OF_WORD: dict[str, list[str]] = defaultdict(list)
for _language, _list in _WORDS.items():
    for _word in set(_list.split()):
        _OF_WORD[_word].append(_language)

_WORD = re.compile(r"[^\W\d_]+")
_SYMBOL = re.compile(r"[\[\](){}=<>;_\\/|+*]")
_SYMBOLS = 0.04
_SCRIPTS = {
    "CJK": "Chinese or Japanese",
    "HIRAGANA": "Japanese",
    "KATAKANA": "Japanese",
    "HANGUL": "Korean",
    "CYRILLIC": "Cyrillic script",
    "ARABIC": "Arabic script",
    "HEBREW": "Hebrew",
    "DEVANAGARI": "Devanagari script",
    "GREEK": "Greek",
    "THAI": "Thai",
}
_SHARE, _MARGIN, _FEWEST, _KINDS = 1 / 8, 1.5, 8, 4


def language_of(text: str) -> str | None:
    """Return a language or script, or None where a text does not show one."""
    sample = text[:4000]
    if not sample.isascii():
        script = _script(sample)
        if script is not None:
            return script
    words = _WORD.findall(sample.lower())
    # `for`, `if`, `not`, `in` hold programs together, too.
    if len(words) < _FEWEST or len(_SYMBOL.findall(sample)) > _SYMBOLS * len(sample):
        return None
    votes: dict[str, int] = defaultdict(int)
    different: dict[str, set[str]] = defaultdict(set)
    for word in words:
        for language in _OF_WORD.get(word, ()):
            votes[language] += 1
            different[language].add(word)
    ranked = sorted(votes.items(), key=lambda vote: -vote[1])
    # `Ben has 4` is no Turkish, nor `1 plus 1 plus 1` French.
    if not ranked or ranked[0][1] < _SHARE * len(words) or len(different[ranked[0][0]]) < _KINDS:
        return None
    second = ranked[1][1] if len(ranked) > 1 else 0
    return ranked[0][0] if ranked[0][1] >= _MARGIN * second else None


def _script(text: str) -> str | None:
    letters = [c for c in text if c.isalpha()]
    other: dict[str, int] = defaultdict(int)
    for character in letters:
        if ord(character) > 0x24F:
            name = unicodedata.name(character, "").partition(" ")[0]
            if name in _SCRIPTS:
                other[_SCRIPTS[name]] += 1
    if not other:
        return None
    script, count = max(other.items(), key=lambda item: item[1])
    if other.get("Japanese", 0) > 0.1 * len(letters):
        script = "Japanese"  # kana beside the characters that it shares with Chinese
    return script if sum(other.values()) > 0.3 * len(letters) and count else None


class Languages:
    """The languages of prompts and of answers, each by themselves: translation has two."""

    def __init__(self) -> None:
        self._rows: dict[str, defaultdict[str, list[tuple[str, str]]]] = {
            "prompts": defaultdict(list),
            "answers": defaultdict(list),
        }

    def see(self, entry: Entry) -> None:
        """Tell the languages of an entry."""
        parts = {"prompts": entry.prompt, "answers": "\n".join(entry.answers)}
        for part, text in parts.items():
            if language := language_of(text):
                self._rows[part][language].append((entry.origin, excerpt(text)))

    def findings(self) -> Iterable[Finding]:
        """Return where languages are mixed."""
        for part, by_language in self._rows.items():
            total = sum(map(len, by_language.values()))
            if total < 5:
                continue
            main, rows = max(by_language.items(), key=_size)
            others = {name: of for name, of in by_language.items() if name != main}
            if not others:
                continue
            share = 1 - len(rows) / total
            found = sorted((place, name, told) for name, of in others.items() for place, told in of)
            known = ", ".join(
                f"{name} {len(of):,}" for name, of in sorted(by_language.items(), key=_fewest)
            )
            yield Finding(
                "languages",
                "warning" if share < 0.1 else "note",
                f"{part} not in the main language ({main})",
                "a few samples in another language teach little of it and disturb the main "
                "one; drop them unless they are intended",
                rows=[place for place, _, _ in found],
                examples=[known, *(f"{place} ({name}): {told}" for place, name, told in found[:3])],
            )


def _size(item: tuple[str, list[tuple[str, str]]]) -> int:
    return len(item[1])


def _fewest(item: tuple[str, list[tuple[str, str]]]) -> int:
    return -len(item[1])
