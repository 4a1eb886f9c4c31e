"""Which task data are for, and which of their columns hold what: `task: auto`.

Both are read from the first rows, where they are unambiguous; what was chosen is said, and what is
ambiguous is an error that names the columns and the option that decides. Columns that the recipe
names, or that have their default names, are used as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from etude.core.errors import DataError
from etude.tuning.config.recipe import Recipe
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.columns import names
from etude.tuning.data.documents import is_text
from etude.tuning.data.formats.registry import FORMATS, FirstRow
from etude.tuning.data.sources import standard_input
from etude.tuning.data.sources.image_folder import is_image_folder
from etude.tuning.data.sources.registry import SOURCES, Row, SplitSource

ROWS = 2000
"""Rows that are looked at."""

CHAT = "chat"
LANGUAGE_MODELING = "language-modeling"
TEXT_CLASSIFICATION = "text-classification"
TOKEN_CLASSIFICATION = "token-classification"
IMAGE_CLASSIFICATION = "image-classification"
EMBEDDING = "embedding"

LABEL_NAMES = (
    *("label", "labels", "class", "category", "intent", "sentiment", "target", "topic"),
    *("rating", "stars", "polarity", "emotion", "y"),
)
TEXT_NAMES = (
    *("text", "sentence", "review", "content", "body", "message", "comment", "utterance"),
    *("tweet", "document", "query", "question", "abstract", "headline"),
)
WORD_NAMES = ("tokens", "words")
TAG_NAMES = ("tags", "ner_tags", "labels", "entities", "spans")
ANSWER_NAMES = (
    *(("prompt", "completion"), ("question", "answer"), ("query", "response")),
    *(("prompt", "response"), ("input", "output"), ("source", "target")),
    *(("document", "summary"), ("article", "highlights"), ("text", "summary")),
)
"""Columns of a prompt and its answer, beside those that a format recognises."""
PAIR_NAMES = (
    *(("anchor", "positive"), ("query", "positive"), ("query", "passage"), ("query", "document")),
)
"""Columns of two texts that belong together."""

LABEL_CHARACTERS = 60
"""Labels are shorter than this in the mean."""
REPEATED = 2.0
"""Labels occur this often in the mean, or more."""


@dataclass(frozen=True)
class Detected:
    """What the data are for."""

    task: str
    columns: dict[str, Any]
    """Settings of the data section to change: `{"text": "review", "label": "stars"}`."""
    reason: str
    """For the user: what was chosen, and from what."""


def resolved(recipe: Recipe) -> tuple[Recipe, list[str]]:
    """Return a recipe with its task and columns decided, and what was decided, for the user.

    Args:
        recipe: any; one whose task and columns are known is returned as it is, and so is one whose
            data are standard input, until that is stored.

    Raises:
        DataError: the data cannot be read, or the choice is ambiguous.
    """
    if recipe.data.kind == "docstrings":
        return _with(recipe, CHAT if recipe.task == "auto" else recipe.task, {}), []
    if recipe.task != "auto" and recipe.task not in _FINDERS:
        return recipe, []
    if recipe.data.train == standard_input.NAME:
        return recipe, []  # read once it is stored
    if folder := _image_folder(recipe.data):
        if recipe.task != "auto":
            return recipe, []
        return _with(recipe, IMAGE_CLASSIFICATION, {}), [
            f"task: {IMAGE_CLASSIFICATION}, from the images in the folders of {folder.name}"
        ]
    documents = [file.path for file in recipe.data.train_files if file.path is not None]
    if recipe.data.kind == "files" and any(map(is_text, documents)):
        if recipe.task != "auto":
            return recipe, []
        name = Path(documents[0]).name
        return _with(recipe, LANGUAGE_MODELING, {}), [
            f"task: {LANGUAGE_MODELING}, from the text of {name}"
        ]
    recipe.require_data()
    rows = first_rows(recipe.data)
    found = (
        detect(rows, recipe.data)
        if recipe.task == "auto"
        else find_columns(recipe.task, rows, recipe.data)
    )
    if found is None:
        return recipe, []
    return _with(recipe, found.task, found.columns), [found.reason]


def _image_folder(spec: DataSpec) -> Path | None:
    """Return the training data if they are a folder of images."""
    paths = [Path(f.path).expanduser() for f in spec.train_files if f.path is not None]
    if spec.kind != "files":
        return None
    return next((path for path in paths if is_image_folder(path)), None)


def _with(recipe: Recipe, task: str, columns: dict[str, Any]) -> Recipe:
    if task == recipe.task and not columns:
        return recipe
    data = recipe.data.model_copy(update=columns)
    fields = recipe.model_copy(update={"task": task, "data": data}).model_dump()
    return Recipe.parse(fields)


def first_rows(spec: DataSpec) -> list[Row]:
    """Return the first readable training rows.

    Raises:
        DataError: there are none.
    """
    source = SOURCES[spec.kind]
    if isinstance(source, SplitSource):
        raise DataError(f"data.kind: {spec.kind} has no rows to read the task from; set task")
    found = [row for row in islice(source.rows(spec).train, ROWS) if isinstance(row, Row)]
    if not found:
        raise DataError(f"{spec.train} contains no rows")
    return found


def detect(rows: Sequence[Row], spec: DataSpec) -> Detected:
    """Return the task and the columns of rows.

    Args:
        rows: the first rows, at least one.
        spec: the data section.

    Raises:
        DataError: the rows suit no task, or several.
    """
    columns = _profiles(rows)
    words = _tagged(columns, spec)
    if words is not None:
        return words
    pair = _named_pair(columns, PAIR_NAMES)
    if pair is not None:
        return Detected(
            EMBEDDING,
            {"text": pair[0], "positive": pair[1]},
            _chose(EMBEDDING, "texts that belong together", *pair),
        )
    if (chat := _conversation(rows[0], columns, spec)) is not None:
        return chat
    texts, labels = _texts(columns, spec), _labels(columns, spec)
    if labels and [name for name in texts if name not in labels]:
        found = _classified(columns, spec)
        assert found is not None, "the columns are not those of the recipe's defaults alone"
        return found
    if len(texts) == 1:
        return Detected(
            LANGUAGE_MODELING,
            {} if texts[0] == spec.text else {"text": texts[0]},
            _chose(LANGUAGE_MODELING, "plain text", texts[0]),
        )
    listed = names(set(columns))
    raise DataError(
        f"the task cannot be read from the columns {listed}; say it by --task (task), and the "
        "columns by --text-column and --label-column (data.text, data.label), or data.prompt and "
        "data.completion"
    )


def find_columns(task: str, rows: Sequence[Row], spec: DataSpec) -> Detected | None:
    """Return the columns of a known task; None where the recipe's own are right.

    Raises:
        DataError: several columns may be meant.
    """
    return _FINDERS[task](_profiles(rows), spec) if task in _FINDERS else None


@dataclass(frozen=True)
class _Column:
    """What a column holds."""

    name: str
    texts: int
    """Values that are text."""
    numbers: int
    lists: int
    count: int
    """Values that are there."""
    distinct: int
    mean_length: float
    """Characters of a text or number."""
    spaced: float
    """Share of values with white space inside: of texts, not of ids."""

    @property
    def is_text(self) -> bool:
        return self.texts > 0.9 * self.count

    @property
    def is_list(self) -> bool:
        return self.lists > 0.9 * self.count


def _profiles(rows: Sequence[Row]) -> dict[str, _Column]:
    order = dict.fromkeys(name for row in rows for name in row.values)
    found: dict[str, _Column] = {}
    for name in order:
        values = [row.values[name] for row in rows if row.values.get(name) is not None]
        written = [str(value).strip() for value in values if isinstance(value, str | int | float)]
        found[name] = _Column(
            name,
            sum(isinstance(value, str) for value in values),
            sum(isinstance(value, int | float) for value in values),
            sum(isinstance(value, list) for value in values),
            len(values),
            len(set(written)),
            sum(map(len, written)) / max(len(written), 1),
            sum(len(text.split()) > 1 for text in written) / max(len(written), 1),
        )
    return found


def _tagged(columns: dict[str, _Column], spec: DataSpec) -> Detected | None:
    """Return the columns of words and their tags."""
    del spec
    words = [name for name in WORD_NAMES if name in columns and columns[name].is_list]
    tags = [name for name in TAG_NAMES if name in columns and columns[name].is_list]
    if not words or not tags:
        return None
    return Detected(
        TOKEN_CLASSIFICATION,
        {},
        _chose(TOKEN_CLASSIFICATION, "words and their tags", words[0], tags[0]),
    )


def _conversation(first: Row, columns: dict[str, _Column], spec: DataSpec) -> Detected | None:
    """Return the columns of prompts and answers, if a format or a usual name says so."""
    look = FirstRow.of(first, spec)
    claims = [
        (priority, name)
        for name, data_format in FORMATS.items()
        if name != "text"
        and (priority := data_format.recognize(look)) is not None
        # A recipe that names the label of a classification does not ask for preferences.
        and (name != "unpaired_preference" or look.asked <= look.columns)
    ]
    if spec.format not in ("auto", "text"):
        return Detected(CHAT, {}, f"task: {CHAT}, as data.format is {spec.format}")
    if claims:
        name = min(claims)[1]
        used = [column for column in FORMATS[name].columns if column in columns]
        return Detected(CHAT, {}, _chose(CHAT, f"the format {name}", *used))
    pair = _named_pair(columns, ANSWER_NAMES)
    if pair is None:
        return None
    settings = {"prompt": pair[0], "completion": pair[1]}
    return Detected(CHAT, settings, _chose(CHAT, "prompts and answers", *pair))


def _named_pair(
    columns: dict[str, _Column], pairs: Sequence[tuple[str, str]]
) -> tuple[str, str] | None:
    by_name = {name.lower(): name for name in columns}
    for first, second in pairs:
        if first in by_name and second in by_name:
            return by_name[first], by_name[second]
    return None


def _texts(columns: dict[str, _Column], spec: DataSpec) -> list[str]:
    """Return the columns that may be the text: the recipe's, a usual name, or any with words."""
    if spec.text in columns:
        return [spec.text]
    named = [n for n in columns if n.lower() in TEXT_NAMES and columns[n].is_text]
    if named:
        return named
    return [n for n, column in columns.items() if column.is_text and column.spaced > 0.5]


def _labels(columns: dict[str, _Column], spec: DataSpec) -> list[str]:
    """Return the columns that may be the label: the recipe's, a usual name, or few short values."""
    if spec.label in columns:
        return [spec.label]
    named = [n for n in columns if n.lower() in LABEL_NAMES]
    if named:
        return named
    return [
        name
        for name, column in columns.items()
        if (column.texts or column.numbers)
        and column.distinct >= 2
        and column.distinct * REPEATED <= column.count
        and column.mean_length < LABEL_CHARACTERS
    ]


def _classified(columns: dict[str, _Column], spec: DataSpec) -> Detected | None:
    """Return the columns of texts and labels; None where the recipe's own are there.

    Raises:
        DataError: several may be meant.
    """
    chosen: dict[str, Any] = {}
    if spec.label not in columns:
        labels = _labels(columns, spec)
        if len(labels) != 1:
            raise DataError(_ambiguous("label", labels, columns))
        chosen["label"] = labels[0]
    label = chosen.get("label", spec.label)
    if spec.text not in columns and "{" not in spec.text:
        texts = [name for name in _texts(columns, spec) if name != label]
        if len(texts) != 1:
            raise DataError(_ambiguous("text", texts, columns))
        chosen["text"] = texts[0]
    text = chosen.get("text", spec.text)
    values = columns[label].distinct
    reason = _chose(TEXT_CLASSIFICATION, "texts and labels", text, label)
    return Detected(TEXT_CLASSIFICATION, chosen, f"{reason} ({values:,} different values)")


def _classified_columns(columns: dict[str, _Column], spec: DataSpec) -> Detected | None:
    defaults = DataSpec()
    own = {"text": spec.text, "label": spec.label}
    named = {key for key, value in own.items() if value != getattr(defaults, key)}
    # What the recipe names is used; if it is missing, the row's own error says so.
    if named == {"text", "label"} or all(value in columns for value in own.values()):
        return None
    if any(own[key] not in columns for key in named):
        return None
    return _classified(columns, spec)


def _modelled_columns(columns: dict[str, _Column], spec: DataSpec) -> Detected | None:
    if spec.text in columns or spec.text != DataSpec().text or spec.format != "auto":
        return None
    texts = _texts(columns, spec)
    if len(texts) != 1:
        return None
    return Detected(
        LANGUAGE_MODELING, {"text": texts[0]}, _chose(LANGUAGE_MODELING, "plain text", texts[0])
    )


def _chat_columns(columns: dict[str, _Column], spec: DataSpec) -> Detected | None:
    """Return usual names of prompts and answers where no format recognises the columns."""
    first = FirstRow.of(Row("", dict.fromkeys(columns)), spec)
    if spec.format != "auto" or any(form.recognize(first) is not None for form in FORMATS.values()):
        return None
    pair = _named_pair(columns, ANSWER_NAMES)
    if pair is None:
        return None
    settings = {"prompt": pair[0], "completion": pair[1]}
    return Detected(CHAT, settings, _chose(CHAT, "prompts and answers", *pair))


_FINDERS = {
    CHAT: _chat_columns,
    LANGUAGE_MODELING: _modelled_columns,
    TEXT_CLASSIFICATION: _classified_columns,
}


def _chose(task: str, what: str, *columns: str) -> str:
    listed = " and ".join(map(repr, columns))
    return f"task: {task}, from {what} in {'column' if len(columns) == 1 else 'columns'} {listed}"


def _ambiguous(role: str, found: Sequence[str], columns: dict[str, _Column]) -> str:
    option = f"--{role}-column (data.{role})"
    if not found:
        return (
            f"no column looks like the {role}; name it by {option}: there are {names(set(columns))}"
        )
    listed = ", ".join(map(repr, found))
    return f"several columns may be the {role} ({listed}); name it by {option}"
