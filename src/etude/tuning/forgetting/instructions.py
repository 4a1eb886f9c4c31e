"""Instructions whose fulfilment a program can check: length, form, words, JSON.

The kind is that of IFEval (Zhou et al. 2023, arXiv:2311.07911); the hundred prompts are written for
this project. They ask for nothing that a model must know, so they measure whether a tuned model
still does what it is told.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

FILE = "instructions.jsonl"

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_SENTENCE_END = re.compile(r"[.!?]+[\"'”’)\]]*(?=\s|$)")
_BULLET = re.compile(r"^\s*[-*•]\s+\S")
_NUMBERED = re.compile(r"^\s*\d+[.)]\s+\S")
_FENCE = re.compile(r"^```[a-z]*\s*\n(.*?)\n?```$", re.DOTALL)


@dataclass(frozen=True)
class Instruction:
    """A prompt, and what its answer must be like."""

    prompt: str
    check: str
    """Name of the check in `CHECKS`."""
    options: Mapping[str, Any]
    """Its arguments."""

    def followed(self, answer: str) -> bool:
        """Return whether an answer does what the prompt asks; an empty one never does."""
        answer = answer.strip()
        return bool(answer) and CHECKS[self.check](answer, **self.options)


@cache
def instructions() -> tuple[Instruction, ...]:
    """Return the instructions that are shipped."""
    text = resources.files("etude.tuning.forgetting").joinpath(FILE).read_text("utf-8")
    records = [json.loads(line) for line in text.splitlines()]
    return tuple(
        Instruction(record.pop("prompt"), record.pop("check"), record) for record in records
    )


def _within(
    count: int, least: int = 0, most: int | None = None, exactly: int | None = None
) -> bool:
    if exactly is not None:
        return count == exactly
    return count >= least and (most is None or count <= most)


def _lowercase(answer: str) -> bool:
    # Letters without case do not count, but there must be some that have it.
    return answer == answer.lower() != answer.upper()


def _uppercase(answer: str) -> bool:
    return answer == answer.upper() != answer.lower()


def _words(answer: str, **bounds: int) -> bool:
    return _within(len(_WORD.findall(answer)), **bounds)


def _sentences(answer: str, **bounds: int) -> bool:
    ends = [match.end() for match in _SENTENCE_END.finditer(answer)]
    unfinished = not ends or ends[-1] < len(answer)
    return _within(len(ends) + unfinished, **bounds)


def _lines(answer: str, **bounds: int) -> bool:
    return _within(sum(bool(line.strip()) for line in answer.splitlines()), **bounds)


def _matching_lines(pattern: re.Pattern[str]) -> Callable[..., bool]:
    def check(answer: str, **bounds: int) -> bool:
        return _within(sum(bool(pattern.match(line)) for line in answer.splitlines()), **bounds)

    return check


def _contains(answer: str, words: list[str]) -> bool:
    found = {word.lower() for word in _WORD.findall(answer)}
    return all(word in found for word in words)


def _avoids(answer: str, words: list[str]) -> bool:
    found = {word.lower() for word in _WORD.findall(answer)}
    return not any(word in found for word in words)


def _without(answer: str, characters: str) -> bool:
    return not any(character in answer for character in characters)


def _starts(answer: str, text: str) -> bool:
    return answer.lower().lstrip("\"'“*").startswith(text)


def _ends(answer: str, text: str) -> bool:
    answer = answer.lower().rstrip("\"'”*")
    return answer.endswith(text) or answer.rstrip(".!").endswith(text)


def _one_of(answer: str, answers: list[str]) -> bool:
    return answer.lower().strip("\"'“”*").rstrip(".!") in answers


def _number(answer: str) -> bool:
    return re.fullmatch(r"\d+\.?", answer) is not None


def _json(answer: str, keys: list[str]) -> bool:
    fenced = _FENCE.match(answer)
    try:
        value = json.loads(fenced[1] if fenced else answer)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and set(value) == set(keys)  # pyright: ignore[reportUnknownArgumentType]


def _quoted(answer: str) -> bool:
    pairs = {'"': '"', "“": "”"}
    return len(answer) > 2 and pairs.get(answer[0]) == answer[-1]


def _matches(answer: str, pattern: str) -> bool:
    return re.search(pattern, answer) is not None


def _parts(answer: str, separator: str, **bounds: int) -> bool:
    lines = answer.splitlines()
    parts, filled = 0, False
    for line in [*lines, separator]:
        if line.strip() == separator:
            parts, filled = parts + filled, False
        elif line.strip():
            filled = True
    return _within(parts, **bounds)


def _repeats(answer: str, word: str, **bounds: int) -> bool:
    return _within([w.lower() for w in _WORD.findall(answer)].count(word), **bounds)


CHECKS: dict[str, Callable[..., bool]] = {
    "lowercase": _lowercase,
    "uppercase": _uppercase,
    "words": _words,
    "sentences": _sentences,
    "lines": _lines,
    "bullets": _matching_lines(_BULLET),
    "numbered": _matching_lines(_NUMBERED),
    "contains": _contains,
    "avoids": _avoids,
    "without": _without,
    "starts": _starts,
    "ends": _ends,
    "one_of": _one_of,
    "number": _number,
    "json": _json,
    "quoted": _quoted,
    "matches": _matches,
    "parts": _parts,
    "repeats": _repeats,
}
"""By name: whether an answer, stripped, fulfils an instruction."""
