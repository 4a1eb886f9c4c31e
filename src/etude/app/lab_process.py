"""Answers the questions of `lab`: a line of JSON each, and one in return."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from etude.app.warm_process import answer_requests
from etude.core.errors import DataError, EtudeError

if TYPE_CHECKING:
    from etude.tuning.config.recipe import Recipe
    from etude.tuning.data.inspect import Look
    from etude.tuning.data.sources.registry import SourceRow

MOST_ROWS = 200_000
"""Rows of a file that are read for a preview."""

MOST_DISTINCT = 10_000
"""Different values of a column that are told apart."""

CELL = 300
"""Characters of a cell that are shown."""

SAMPLE_TOKENS = 8000
"""Tokens of a sample that are shown."""

FEW = 20
"""Columns with at most this many different values have them listed."""

SHOWN_ROWS = 8
"""Row numbers of a finding, and unreadable rows, that are returned."""

ENCODINGS = ("cp1252", "latin-1")
"""Tried in this order for text that is not UTF-8 and has no byte order mark."""


def decide(
    data: str, task: str, model: str | None, method: Any, overrides: list[str]
) -> dict[str, Any]:
    """Make a recipe for data."""
    from etude.app.recipe_form import recipe_text
    from etude.app.tune import DataOptions, plan_run
    from etude.tuning.settle import settled

    notes: list[str] = []
    if not any(one.startswith("data.encoding=") for one in overrides):
        encoding = encoding_of(Path(data).expanduser())
        if encoding is not None:
            overrides = [*overrides, f"data.encoding={encoding}"]
            notes.append(f"encoding: {encoding}, as the file is not UTF-8; look at its accents")
    plan = plan_run(None, overrides, task=task, model=model, data=DataOptions(data), method=method)
    recipe: Recipe = settled(plan.recipe, Path())
    return {"yaml": recipe_text(recipe), "notes": [*notes, *plan.notes]}


def encoding_of(file: Path) -> str | None:
    """Return the encoding of a text file that is neither UTF-8 nor marked; else None."""
    from etude.tuning.data.sources.data_file import DataFile

    data_file = DataFile(file)
    if data_file.suffix not in (".csv", ".tsv", ".txt", ".jsonl", ".json") or not file.is_file():
        return None
    try:
        with data_file.open_bytes() as stream:
            start = stream.read(1 << 20)
        with data_file.open_text() as text:
            read = text.read(1 << 20)
    except (OSError, EOFError, UnicodeError):
        return None  # reading the data says what is wrong
    if data_file.undecoded(read, 1) is None:
        return None
    for encoding in ENCODINGS:
        try:
            start.decode(encoding)
        except UnicodeDecodeError:
            continue
        return encoding
    return None


@dataclass
class _Statistics:
    """Of one column, counted while its rows pass."""

    filled: int = 0
    numbers: int = 0
    characters: int = 0
    longest: int = 0
    values: Counter[str] = field(default_factory=Counter[str])

    def add(self, value: Any) -> None:
        text = _text(value)
        if not text.strip():
            return
        self.filled += 1
        self.numbers += _is_number(value, text)
        self.characters += len(text)
        self.longest = max(self.longest, len(text))
        key = text[:CELL]
        if key in self.values or len(self.values) < MOST_DISTINCT:
            self.values[key] += 1

    def as_json(self, name: str) -> dict[str, Any]:
        distinct = len(self.values)
        return {
            "name": name,
            "filled": self.filled,
            "distinct": distinct,
            "numbers": self.numbers,
            "mean_length": self.characters / max(self.filled, 1),
            "longest": self.longest,
            "common": self.values.most_common() if distinct <= FEW < self.filled else [],
        }


def preview(yaml: str, search: str, first: int, limit: int) -> dict[str, Any]:
    """Read rows, count their columns, and keep those that are asked for."""
    from etude.tuning.data.sources.registry import Row

    recipe = _recipe(yaml)
    columns: dict[str, _Statistics] = {}
    shown: list[tuple[str, dict[str, Any]]] = []
    unreadable: list[str] = []
    sought, matching, count, complete, bad = search.casefold(), 0, 0, True, 0
    for row in _rows(recipe):
        if count == MOST_ROWS:
            complete = False
            break
        count += 1
        if not isinstance(row, Row):
            bad += 1
            if len(unreadable) < SHOWN_ROWS:
                unreadable.append(row.message)
            continue
        for name, value in row.values.items():
            columns.setdefault(name, _Statistics()).add(value)
        if sought and not any(sought in _text(value).casefold() for value in row.values.values()):
            continue
        if first <= matching < first + limit:
            shown.append((row.origin, row.values))
        matching += 1
    return {
        "columns": [found.as_json(name) for name, found in columns.items()],
        "rows": [
            {"origin": origin, "cells": [_cell(values.get(name)) for name in columns]}
            for origin, values in shown
        ],
        "matching": matching,
        "count": count,
        "complete": complete,
        "unreadable": unreadable,
        "unreadable_count": bad,
    }


def _rows(recipe: Recipe) -> Iterator[SourceRow]:
    from etude.tuning.data.documents import is_text
    from etude.tuning.data.sources.registry import SOURCES, Row, SplitSource

    recipe.require_data()
    source = SOURCES[recipe.data.kind]
    files = [file.path for file in recipe.data.train_files if file.path is not None]
    if isinstance(source, SplitSource) or any(map(is_text, files)):
        from etude.app.data import samples_of
        from etude.tuning.data.account import Account

        split = samples_of(recipe, Account())
        for sample in split.train:
            said = {message.role: message.content for message in sample.messages}
            yield Row(sample.origin, said or {"text": sample.text})
        return
    rows = source.rows(recipe.data.every_row())
    yield from chain(rows.train, rows.eval or ())


def inspect(yaml: str, count: int, origins: list[str], model: str | None) -> dict[str, Any]:
    """Tokenise samples as training would."""
    from etude.app.data import inspect_recipe
    from etude.core.progress import SilentProgress
    from etude.tuning.data.inspect import totals
    from etude.tuning.data.samples import remedy

    recipe = _recipe(yaml)
    recipe.require_data()
    if model is not None:
        named = recipe.model.model_copy(update={"id": model})
        recipe = recipe.model_copy(update={"model": named})
    found = inspect_recipe(recipe, count, SilentProgress(), origins=origins)
    refused = found.refused
    if refused is not None:
        refused += remedy(recipe.data, f"{recipe.data.train}")
    return {
        "samples": [_mask(look) for look in found.looks],
        "totals": totals(found.train),
        "held_out": totals(found.eval) if found.eval.samples else [],
        "histogram": [list(bar) for bar in found.train.histogram],
        "notes": found.notes,
        "fields": found.fields,
        "refused": refused or "",
    }


def _mask(look: Look) -> dict[str, Any]:
    pieces = look.pieces
    return {
        "origin": look.origin,
        "note": look.note or "",
        "tokens": len(pieces),
        "trained": sum(piece.state == "trained" for piece in pieces),
        "pieces": [asdict(piece) for piece in pieces[:SAMPLE_TOKENS]],
    }


def check(yaml: str) -> dict[str, Any]:
    """Run the checks of data."""
    from etude.app.data import tokenizer_of
    from etude.core.progress import SilentProgress
    from etude.tuning.data.check.linter import check_data
    from etude.tuning.tasks.detect import resolved

    recipe, _ = resolved(_recipe(yaml))
    recipe.require_data()
    tagged = recipe.task == "token-classification"
    tokenizer = None if tagged else tokenizer_of(recipe.model, SilentProgress())
    report = check_data(
        recipe.data, tokenizer, recipe.train.seed, task=recipe.task, progress=SilentProgress()
    )
    return {
        "rows": report.rows_in,
        "findings": [
            {
                "check": found.check,
                "severity": found.severity,
                "title": found.title,
                "advice": found.advice,
                "count": found.count,
                "rows": list(found.rows[:SHOWN_ROWS]),
                "examples": list(found.examples[:SHOWN_ROWS]),
            }
            for found in report.findings
        ],
    }


def memory(yaml: str, base: str) -> dict[str, Any]:
    """Estimate the peak memory of a run, and the disk that it takes."""
    from etude.app.memory import estimate_methods_of
    from etude.core.machine import disk_free
    from etude.tuning.tasks.detect import resolved

    recipe = _recipe(yaml)
    if recipe.data.train is not None or recipe.data.kind == "docstrings":
        recipe, _ = resolved(recipe)
    compared = estimate_methods_of(recipe)
    own = next((one for one in compared.methods if one.method == recipe.method), None)
    if own is None:
        own = estimate_methods_of(recipe, method=cast("Any", recipe.method)).methods[0]
    plan = own.plan
    weights = 4 * plan.trained
    checkpoint = weights + plan.parts["optimizer"]
    # Two checkpoints and one that is being written, the best, the state before training, and what
    # is saved.
    disk_needed = 4 * checkpoint + 2 * weights
    return {
        "total": plan.total,
        "parts": dict(plan.parts),
        "available": compared.limit,
        "fits": plan.total <= compared.limit,
        "parameters": plan.parameters,
        "trained": plan.trained,
        "notes": list(plan.notes),
        "change": "" if own.change is None else own.change.change,
        "others": {
            one.method: one.plan.total for one in compared.methods if one.method != recipe.method
        },
        "disk_needed": disk_needed,
        "disk_free": disk_free(base),
    }


def _recipe(yaml: str) -> Recipe:
    from etude.app.recipe_form import read_recipe

    return read_recipe(yaml)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _cell(value: Any) -> str:
    text = _text(value)
    return text if len(text) <= CELL else f"{text[:CELL]}…"


def _is_number(value: Any, text: str) -> bool:
    if isinstance(value, int | float):
        return not isinstance(value, bool)
    try:
        float(text)
    except ValueError:
        return False
    return True


ANSWERS: dict[str, Callable[..., dict[str, Any]]] = {
    "decide": decide,
    "preview": preview,
    "inspect": inspect,
    "check": check,
    "memory": memory,
}


def answer(line: str) -> str:
    """Return the answer to a question, or what is wrong."""
    asked = json.loads(line)
    try:
        return json.dumps({"answer": ANSWERS[asked["question"]](**asked["options"])})
    except EtudeError as error:
        return json.dumps({"error": str(error), "kind": _kind(error)})
    except UnicodeError as error:
        reason = f"the data cannot be decoded: {error}"
        return json.dumps({"error": reason, "kind": "DataError"})


def _kind(error: EtudeError) -> str:
    return "DataError" if isinstance(error, DataError) else type(error).__name__


if __name__ == "__main__":
    answer_requests(answer)
