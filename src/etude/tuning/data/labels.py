"""Labels of texts: reading them from rows, what kind they are, and whether they can be learnt.

A label is read as text, or as several texts. Its kind is decided from all rows at once:

    class         one class a row: text, true and false, whole numbers
    multi_label   any number of labels a row: a list, a text with separators, columns of 0 and 1
    number        a quantity: all labels are numbers, one of them with a fraction

Whole numbers are classes, because 0/1 and 1 to 5 stars mostly are; `data.label_kind: number` makes
quantities of them.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Literal, cast

from etude.core.errors import DataError, did_you_mean
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.columns import ABSENT, missing, parsed, shown, value_at
from etude.tuning.data.schema import DataSplit, Sample
from etude.tuning.data.sources.registry import Row

LabelKind = Literal["class", "multi_label", "number"]

MANY_CLASSES = 50
"""Distinct labels up to which a column is taken for classes, however few rows it has."""
ROWS_SHOWN = 5

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_WHOLE = re.compile(r"[-+]?\d+")
_FLAGS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


class LabelError(DataError):
    """Labelled data that cannot be learnt.

    Attributes:
        check: name of the fault, as `etude data check` has it.
        rows: all rows that it is about.
    """

    def __init__(self, check: str, rows: Sequence[str], message: str) -> None:
        super().__init__(message)
        self.check = check
        self.rows = list(rows)


def read_label(row: Row, spec: DataSpec) -> str | tuple[str, ...]:
    """Return the label of a row, or its labels.

    Raises:
        DataError: it is missing, or not of a kind that a label can be.
    """
    if spec.label_columns:
        return tuple(name for name in spec.label_columns if _flag(row, name))
    column = spec.label
    value: Any = value_at(row.values, column)
    if value is ABSENT:
        raise missing(row, column, "data.label")
    if spec.label_separator is not None:
        if value is None or isinstance(value, str):
            pieces = (value or "").split(spec.label_separator)
            return _several(piece.strip() for piece in pieces)
        raise DataError(
            f"{row.origin}: column {column!r} must hold labels separated by "
            f"{spec.label_separator!r} (data.label_separator), got {shown(value)}"
        )
    if isinstance(value, str) and value.lstrip().startswith("[") and value.rstrip().endswith("]"):
        value = parsed(value, f"{row.origin}: column {column!r}")
    if isinstance(value, list | tuple):
        listed = cast("Sequence[Any]", value)
        return _several(_one(row, column, item) for item in listed)
    return _one(row, column, value)


def number(text: str) -> float | None:
    """Return the number that a label is written as, or None."""
    if _NUMBER.fullmatch(text) is None:
        return None
    value = float(text)
    return value if math.isfinite(value) else None


def label_kind(spec: DataSpec, samples: Iterable[Sample]) -> LabelKind:
    """Return what the labels of `samples` are, by the recipe or by all of them.

    Raises:
        DataError: they are of several kinds, or not of the recipe's; the message names rows.
    """
    lists: list[str] = []
    words: list[str] = []
    whole: list[str] = []
    fractions: list[str] = []
    first_word = first_number = ""
    for sample in samples:
        label = sample.label
        if isinstance(label, tuple):
            lists.append(sample.origin)
        elif label is None or number(label) is None:
            words.append(sample.origin)
            first_word = first_word or str(label)
        else:
            (whole if _WHOLE.fullmatch(label) else fractions).append(sample.origin)
            first_number = first_number or label
    single = [*words, *whole, *fractions]
    wanted = spec.label_kind
    if lists and single and wanted != "multi_label":
        fewer = min(lists, single, key=len)
        what = "a list of labels" if fewer is lists else "a single label"
        raise LabelError(
            "mixed-labels",
            fewer,
            f"column {spec.label!r} holds {what} in {rows_named(fewer)}, but not in the other "
            "rows; write all labels the same way, or set data.label_kind: multi_label",
        )
    if wanted == "number" or (wanted == "auto" and not lists and fractions):
        bad = [*lists, *words]
        if bad and wanted == "number":
            raise LabelError(
                "mixed-labels",
                bad,
                f"column {spec.label!r} must hold numbers (data.label_kind: number), but it does "
                f"not in {rows_named(bad)}"
                + (f", the first of them {first_word!r}" if first_word else ""),
            )
        if bad:
            raise _mixture(spec, words, [*whole, *fractions], first_word, first_number)
        return "number"
    if lists and wanted == "class":
        raise LabelError(
            "mixed-labels",
            lists,
            f"column {spec.label!r} holds lists of labels ({rows_named(lists)}), but "
            "data.label_kind is class; set it to multi_label",
        )
    if lists or wanted == "multi_label":
        return "multi_label"
    if wanted == "auto" and words and whole:
        raise _mixture(spec, words, whole, first_word, first_number)
    return "class"


def classes(samples: Iterable[Sample]) -> tuple[str, ...]:
    """Return the distinct labels: sorted as numbers if all are numbers, else as text."""
    labels: set[str] = set()
    for sample in samples:
        labels.update(labels_of(sample))
    if all(_WHOLE.fullmatch(label) for label in labels):
        return tuple(sorted(labels, key=lambda label: (int(label), label)))
    return tuple(sorted(labels))


def labels_of(sample: Sample) -> tuple[str, ...]:
    """Return the labels of a sample: one, or any number of them."""
    label = sample.label
    return label if isinstance(label, tuple) else (str(label),)


def require_learnable(split: DataSplit, spec: DataSpec, kind: LabelKind) -> tuple[str, ...]:
    """Return the classes or labels of the training data, none for numbers.

    Raises:
        DataError: there is nothing to tell apart, the labels look like identifiers or texts, or
            the evaluation data have labels that the training data lack.
    """
    _refuse_identical(split)
    counted = Counter(label for sample in split.train for label in labels_of(sample))
    if kind == "number":
        if len(counted) < 2:
            raise LabelError(
                "one-class",
                _origins(split.train),
                f"every training row has the label {next(iter(counted), '')}; a number cannot be "
                "learnt from rows that all have the same",
            )
        return ()
    _refuse_identifiers(split, spec, counted)
    labels = spec_labels(spec) or classes(split.train)
    if kind == "class" and len(labels) < 2:
        only = labels[0] if labels else ""
        raise LabelError(
            "one-class",
            _origins(split.train),
            f"every training row has the label {only!r}; a classifier needs at least two",
        )
    if kind == "multi_label" and not counted:
        raise LabelError(
            "one-class",
            _origins(split.train),
            "no training row has any label; see data.label and data.label_separator",
        )
    known = set(labels)
    unseen = [sample for sample in split.eval if set(labels_of(sample)) - known]
    if unseen:
        message = unknown_labels(unseen, split.eval, labels)
        raise LabelError("unseen-labels", _origins(unseen), message)
    return labels


def spec_labels(spec: DataSpec) -> tuple[str, ...]:
    """Return the labels that the recipe names: the columns of 0 and 1."""
    return tuple(spec.label_columns)


def unknown_labels(
    unseen: Sequence[Sample], everything: Iterable[Sample], labels: Sequence[str]
) -> str:
    """Describe labels that are not among those of the training data, with their rows."""
    known = set(labels)
    strange = next(label for label in labels_of(unseen[0]) if label not in known)
    found = {label for sample in everything for label in labels_of(sample)}
    if not found & known and len(found) > 1:
        return (
            f"the evaluation data have other labels than the training data: {_some(found)}, not "
            f"{_some(labels)}; write both by the same names (data.label)"
        )
    near = did_you_mean(strange, labels)
    return (
        f"the training data have no label {strange!r}{near}: "
        f"{rows_named(_origins(unseen))}; "
        "remove these rows, or add rows with this label to the training data"
    )


def rows_named(origins: Sequence[str], count: int = ROWS_SHOWN) -> str:
    """Return the first origins, and how many more there are."""
    more = f" and {len(origins) - count:,} more" if len(origins) > count else ""
    return ", ".join(origins[:count]) + more


def describe_labels(kind: LabelKind, samples: Sequence[Sample], spec: DataSpec) -> list[str]:
    """Return notes for the user: what the labels are, how many rows each has, and the rare ones."""
    counted = Counter(label for sample in samples for label in labels_of(sample))
    where = ", ".join(spec.label_columns[:3]) if spec.label_columns else spec.label
    if kind == "number":
        values = sorted(cast("float", number(label)) for label in counted)
        return [f"labels: numbers from {values[0]:g} to {values[-1]:g} (column {where})"]
    least, most = min(counted.values()), max(counted.values())
    each = f"{least:,} rows each" if least == most else f"{least:,} to {most:,} rows each"
    if kind == "multi_label":
        without = sum(1 for sample in samples if not labels_of(sample))
        none = f"; {without:,} rows have none" if without else ""
        if absent := [name for name in spec.label_columns if name not in counted]:
            none += f"; no training row has {_some(absent)}"
        return [f"labels: {len(counted):,}, several a row (column {where}), {each}{none}"]
    notes = [f"labels: {len(counted):,} classes (column {where}), {each}"]
    whole = all(_WHOLE.fullmatch(label) for label in counted)
    if whole and len(counted) > 2 and samples[0].image is None:
        notes.append(
            "the labels are whole numbers, read as classes; to predict them as quantities, set "
            "data.label_kind: number"
        )
    single = sorted(label for label, count in counted.items() if count == 1)
    if single:
        origins = [s.origin for s in samples if s.label in set(single)]
        notes.append(
            f"{len(single):,} classes have one row only, which is trained on and not evaluated: "
            f"{_some(single)} ({rows_named(origins)})"
            if len(single) > 1
            else f"class {single[0]!r} has one row only, which is trained on and not evaluated: "
            f"{origins[0]}"
        )
    return notes


def looks_like_identifiers(distinct: int, rows: int) -> bool:
    """Return whether a column has so many values that it is an identifier or a text."""
    return distinct > MANY_CLASSES and 2 * distinct > rows


def _refuse_identifiers(split: DataSplit, spec: DataSpec, counted: Counter[str]) -> None:
    rows = len(split.train)
    if spec.label_kind != "auto" or not looks_like_identifiers(len(counted), rows):
        return
    numbers = all(_NUMBER.fullmatch(label) for label in counted)
    instead = ", or set data.label_kind: number if they are quantities" if numbers else ""
    raise LabelError(
        "identifiers",
        _origins(split.train),
        f"column {spec.label!r} has {len(counted):,} different labels in {rows:,} training rows "
        f"(such as {next(iter(counted))!r}): an identifier or a text rather than a class; name "
        f"another column (data.label){instead}, or set data.label_kind to class or multi_label if "
        "they are labels",
    )


def _refuse_identical(split: DataSplit) -> None:
    first: tuple[Any, ...] | None = None
    for sample in split.train:
        content = (sample.text, sample.pair)
        if first is None:
            first = content
        elif content != first:
            return
    if len(split.train) > 1:
        raise LabelError(
            "same-texts",
            _origins(split.train),
            f"all {len(split.train):,} training rows have the same text "
            f"({shown(split.train[0].text)}); there is nothing to tell apart (see data.text)",
        )


def _mixture(
    spec: DataSpec, words: list[str], numbers: list[str], word: str, digits: str
) -> LabelError:
    few, many = (words, numbers) if len(words) <= len(numbers) else (numbers, words)
    shown_few, shown_many = (word, digits) if few is words else (digits, word)
    what = ("a text", "numbers") if few is words else ("a number", "texts")
    return LabelError(
        "mixed-labels",
        few,
        f"column {spec.label!r} holds {what[0]} ({shown_few!r}) in {rows_named(few)}, but "
        f"{what[1]} (such as {shown_many!r}) in {len(many):,} other rows; correct these rows, or "
        "set data.label_kind: class if all are names of classes",
    )


def _origins(samples: Iterable[Sample]) -> list[str]:
    return [sample.origin for sample in samples]


def _flag(row: Row, column: str) -> bool:
    if column not in row.values:
        raise missing(row, column, "data.label_columns")
    value: Any = row.values[column]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    flag = _FLAGS.get(str(value).strip().lower())
    if flag is None:
        raise DataError(
            f"{row.origin}: column {column!r} must hold 0 or 1 (data.label_columns), got "
            f"{shown(value)}"
        )
    return flag


def _one(row: Row, column: str, value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and math.isfinite(value):
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, int | str) and str(value).strip():
        return str(value).strip()
    raise DataError(
        f"{row.origin}: column {column!r} must hold a class label (text, number or boolean), or a "
        f"list of them, got {value!r}"
    )


def _several(labels: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(label for label in labels if label))


def _some(labels: Iterable[str], count: int = 4) -> str:
    listed = sorted(labels)
    more = f" and {len(listed) - count:,} more" if len(listed) > count else ""
    return ", ".join(map(repr, listed[:count])) + more
