"""Rows with words and tags, or with a text and its entities, as samples.

Words and tags are lists of one length. Entities of a text are given by their characters, as
annotation tools export them: [start, end, label] (doccano, spaCy) or objects with `start`, `end`
and `label` or `labels` (Prodigy, Label Studio; `annotations` of its full export, too). The text is
split into words, and an entity is given to all words that it touches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, cast

from etude.core.errors import DataError, did_you_mean
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.columns import checked, missing, names, parsed, read_text, shown
from etude.tuning.data.counts import Tally
from etude.tuning.data.schema import Sample
from etude.tuning.data.sources.registry import Row
from etude.tuning.data.tagging.schemes import parse, write
from etude.tuning.data.tagging.words import split_words
from etude.tuning.metrics.entities import Entity

WORDS = ("words", "tokens")
TAGS = ("tags", "ner_tags", "labels")
SPANS = ("spans", "entities", "labels", "label", "annotations")

RAW_SPLITTING = "punctuation"
"""Texts with entities are split at every punctuation mark: fewest entities end inside a word."""


@dataclass
class SpanRepairs:
    """Entities whose ends were moved, by row."""

    widened: Tally = field(default_factory=Tally)
    trimmed: Tally = field(default_factory=Tally)

    def notes(self) -> list[str]:
        """Return a line for each kind."""
        lines: list[str] = []
        if self.widened.count:
            lines.append(f"entities that end inside a word, widened to it: {self.widened}")
        if self.trimmed.count:
            lines.append(f"entities with white space at an end, trimmed: {self.trimmed}")
        return lines


def tagged_reader(
    spec: DataSpec, first: Row, repairs: SpanRepairs | None = None
) -> Callable[[Row], Sample]:
    """Return a function that reads words and tags of a row.

    Args:
        spec: names the columns; those it leaves open are taken from `first`.
        first: the first row.
        repairs: counts entities whose ends were moved.

    Raises:
        DataError: the row has neither words and tags nor a text with entities.
    """
    counted = repairs or SpanRepairs()
    words = _column(spec.words, WORDS, first, "data.words")
    if words is not None:
        tags = _column(spec.tags, TAGS, first, "data.tags")
        if tags is None:
            raise _lacks(first, f"a column {_listed(TAGS)} beside {words!r} (data.tags)")
        return lambda row: _from_words(row, words, tags, spec.tag_names)
    spans = _column(spec.spans, SPANS, first, "data.spans")
    if spans is not None and (spec.text in first.values or "data" in first.values):
        return lambda row: _from_spans(row, spec.text, spans, counted)
    raise _lacks(
        first,
        f"words and tags ({_listed(WORDS)} with {_listed(TAGS)}; data.words, data.tags), or a text "
        f"with entities ({spec.text!r} with {_listed(SPANS)}; data.text, data.spans)",
    )


def words_reader(spec: DataSpec, first: Row) -> Callable[[Row], list[str]] | None:
    """Return a function that reads the words of a row, to predict; None if rows have none."""
    words = _column(spec.words, WORDS, first, "data.words", optional=True)
    return None if words is None else lambda row: _words(row, words)


def _column(
    named: str | None, usual: Sequence[str], row: Row, key: str, *, optional: bool = False
) -> str | None:
    """Return the column of a row that is meant, None for none."""
    if named is None:
        return next((name for name in usual if name in row.values), None)
    if named not in row.values and not optional:
        raise missing(row, named, key)
    return named if named in row.values else None


def _listed(columns: Sequence[str]) -> str:
    return " or ".join(map(repr, columns))


def _lacks(row: Row, what: str) -> DataError:
    known = [*WORDS, *TAGS, *SPANS]
    hints = (did_you_mean(column, known) for column in row.values if column not in known)
    hint = next(filter(None, hints), "")
    return DataError(f"{row.origin}: expected {what}; this row has {names(row.values)}{hint}")


def _from_words(row: Row, column: str, tag_column: str, tag_names: Sequence[str]) -> Sample:
    words = _words(row, column)
    if tag_column not in row.values:
        raise missing(row, tag_column, "data.tags")
    value = _list(row, tag_column)
    if len(value) != len(words):
        raise DataError(
            f"{row.origin}: {len(words)} words in {column!r}, but {len(value)} tags in "
            f"{tag_column!r}; each word needs one tag"
        )
    tags = tuple(
        _tag(tag, f"{row.origin}: tag {place}", words[place - 1], tag_names)
        for place, tag in enumerate(value, start=1)
    )
    return Sample((), " ".join(words), row.origin, words=tuple(words), tags=tags)


def _words(row: Row, column: str) -> list[str]:
    if column not in row.values:
        raise missing(row, column, "data.words")
    words: list[str] = []
    for place, value in enumerate(_list(row, column), start=1):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        word: Any = str(value) if number else value
        where = f"{row.origin}: word {place} of {column!r}"
        if not isinstance(word, str):
            raise DataError(f"{where} must be text, got {shown(word)}")
        if not word.strip():
            raise DataError(f"{where} is empty; remove it, with its tag")
        words.append(checked(word, where))
    if not words:
        raise DataError(f"{row.origin}: {column!r} has no words; remove the row")
    return words


def _list(row: Row, column: str) -> list[Any]:
    value = parsed(row.values[column], f"{row.origin}: column {column!r}")
    if not isinstance(value, list | tuple):
        raise DataError(f"{row.origin}: column {column!r} must be a list, got {shown(value)}")
    return list(cast("Sequence[Any]", value))


def _tag(value: Any, where: str, word: str, tag_names: Sequence[str]) -> str:
    number = value if isinstance(value, int) and not isinstance(value, bool) else None
    if isinstance(value, str) and value.strip().lstrip("-").isdigit():
        number = int(value)
    if number is not None:
        if not tag_names:
            raise DataError(
                f"{where} ({word!r}) is the number {number}, and the data do not say which tag "
                "that is; name all tags in order: data.tag_names: [O, B-PER, I-PER, ...]"
            )
        if not 0 <= number < len(tag_names):
            raise DataError(
                f"{where} ({word!r}) is {number}, but data.tag_names has {len(tag_names)} names"
            )
        return tag_names[number]
    if isinstance(value, str) and value.strip():
        return value.strip()
    raise DataError(f"{where} ({word!r}) must be text, such as O or B-PER; got {shown(value)}")


def _from_spans(row: Row, text_column: str, column: str, repairs: SpanRepairs) -> Sample:
    data = row.values.get("data")
    if text_column not in row.values and isinstance(data, Mapping):
        inner = Row(row.origin, dict(cast("Mapping[str, Any]", data)))
        text = read_text(inner, text_column, "data.text")
    else:
        text = read_text(row, text_column, "data.text")
    if not text.strip():
        raise DataError(f"{row.origin}: column {text_column!r} is empty")
    if column not in row.values:
        raise missing(row, column, "data.spans")
    places = split_words(text, RAW_SPLITTING)
    found: list[Entity] = []
    for number, span in enumerate(_span_list(row, column), start=1):
        where = f"{row.origin}: entity {number} of {column!r}"
        start, end, label = _span(span, where, text)
        inside = text[start:end]
        if inside != inside.strip():
            repairs.trimmed.add(row.origin)
            start += len(inside) - len(inside.lstrip())
            end -= len(inside) - len(inside.rstrip())
        touched = [place for place, (a, b) in enumerate(places) if a < end and b > start]
        if not touched:
            raise DataError(f"{where} ({start} to {end}) contains no word")
        if places[touched[0]][0] < start or places[touched[-1]][1] > end:
            repairs.widened.add(row.origin)
        found.append(Entity(label, touched[0], touched[-1] + 1))
    found.sort(key=lambda entity: entity.start)
    for before, after in pairwise(found):
        if after.start < before.end:
            a, b = (text[places[e.start][0] : places[e.end - 1][1]] for e in (before, after))
            raise DataError(
                f"{row.origin}: two entities share a word: {before.type} {a!r} and {after.type} "
                f"{b!r}; a word can have one tag, so keep one of them"
            )
    words = tuple(text[a:b] for a, b in places)
    tags = tuple(write(found, len(words), "BIO"))
    return Sample((), text, row.origin, words=words, tags=tags)


def _span_list(row: Row, column: str) -> list[Any]:
    value = row.values[column]
    if value is None:
        return []
    spans = _list(row, column)
    # Label Studio's full export: a list of annotations, each with a list of results.
    nested: list[Any] = []
    for item in spans:
        if isinstance(item, Mapping) and "result" in item:
            results: Any = cast("Mapping[str, Any]", item)["result"]
            nested += [result["value"] for result in results if "value" in result]
        else:
            nested.append(item)
    return nested


def _span(span: Any, where: str, text: str) -> tuple[int, int, str]:
    """Return start, end and label of an entity, checked against its text."""
    fields = _fields(span)
    start, end, label = (fields.get(name) for name in ("start", "end", "label"))
    if isinstance(label, list | tuple):
        several = list(cast("Sequence[Any]", label))
        label = several[0] if len(several) == 1 else None
    numbers = isinstance(start, int) and isinstance(end, int)
    if not numbers or not isinstance(label, str) or not label.strip():
        raise DataError(f"{where} must be [start, end, label] with one label, got {shown(span)}")
    start, end, label = cast("int", start), cast("int", end), label.strip()
    if not 0 <= start < end <= len(text):
        raise DataError(
            f"{where}: {start} to {end} are no characters of a text of {len(text)} characters"
        )
    said = fields.get("text")
    if isinstance(said, str) and said.strip() != text[start:end].strip():
        raise DataError(
            f"{where} is {said!r}, but characters {start} to {end} are {text[start:end]!r}: the "
            "offsets do not count characters"
        )
    if label == "O":
        raise DataError(f"{where}: O is the tag of words outside of entities; name the type")
    parse(f"B-{label}")
    return start, end, label


_NAMES = {
    "start": ("start", "start_offset", "begin"),
    "end": ("end", "end_offset"),
    "label": ("label", "labels", "entity", "type"),
    "text": ("text",),
}


def _fields(span: Any) -> dict[str, Any]:
    if isinstance(span, Mapping):
        known = cast("Mapping[str, Any]", span)
        return {
            name: known[other]
            for name, others in _NAMES.items()
            for other in reversed(others)
            if other in known
        }
    if isinstance(span, list | tuple):
        listed = list(cast("Sequence[Any]", span))
        if len(listed) == 3:
            return dict(zip(("start", "end", "label"), listed, strict=True))
    return {}
