"""Predictions of a run for many inputs: read from a file or a stream, made in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etude.core.errors import DataError

if TYPE_CHECKING:
    from etude.core.progress import Progress
    from etude.tuning.config.recipe import Recipe
    from etude.tuning.predictor import Predictor
    from etude.tuning.runs.folder import RunFolder
    from etude.tuning.tasks.base import Prediction

BATCH = 64
"""Inputs that are predicted at a time."""
TEXT_SUFFIXES = (".txt", ".text", "")
"""Files of one input a line; others are read by the data readers."""


Input = str | list[str] | tuple[str, str]
"""A text, or a pair of texts."""


@dataclass(frozen=True)
class PredictedInput:
    """An input, and what the model gave it."""

    input: Input
    prediction: Prediction

    def as_json(self) -> dict[str, Any]:
        """Return plain data: `input`, and what the task predicts (`answer`, `label`, ...)."""
        shown = self.input if isinstance(self.input, str) else list(self.input)
        return {"input": shown, **self.prediction.as_json()}


@dataclass(frozen=True)
class PredictionJob:
    """Inputs that were checked, and the run that predicts them."""

    run: RunFolder | Path
    """A run, or the folder of an adapter."""
    inputs: Iterator[Input]
    total: int | None
    """Number of inputs; None if they come from a stream."""


def plan_predictions(
    run: str,
    source: Path | Iterable[str],
    *,
    column: str | None = None,
    base: Path = Path("runs"),
) -> PredictionJob:
    """Find the run and check its inputs, before any weights are read.

    A file is read to its end once to check it, so an error in its last row costs no predictions;
    a stream is checked as it is read.

    Args:
        run: `latest`, a name, or a path; or the folder of a classifier's adapter, as PEFT saves it.
        source: a file of lines (.txt), or of rows (JSONL, JSON, CSV, TSV, Parquet); or a stream of
            lines. Blank lines are skipped. Of a run that classifies pairs, a line is two texts
            with a tab between them.
        column: of a file of rows: the column with the input, or a template of columns such as
            `{title}: {text}`. None is the run's own: `data.prompt`, or `data.text` of a
            run that reads texts; words where the rows of a token classification have them.
        base: folder that runs are kept in.

    Raises:
        RunError: there is no such run.
        DataError: there are no inputs, a row cannot be read, or it has no such column.
    """
    from etude.tuning.config.recipe import Recipe
    from etude.tuning.runs.folder import find_run

    if (adapter := Path(run)) and (adapter / "adapter_config.json").is_file():
        from etude.tuning.predictor import adapter_recipe

        folder, recipe = adapter, adapter_recipe(adapter)
    else:
        folder = find_run(run, base)
        recipe = Recipe.read_run(folder.recipe)
    if column is not None and recipe.data.text_pair is not None:
        raise DataError(
            f"--column names one text, and this run classifies pairs: columns "
            f"{recipe.data.text!r} and {recipe.data.text_pair!r}"
        )
    if isinstance(source, Path):
        read = _reader(source, recipe, column)
        total = sum(1 for _ in read())
        if not total:
            raise DataError(f"{source} holds no inputs")
        return PredictionJob(folder, read(), total)
    if column is not None:
        raise DataError("--column is for a file of rows; standard input has an input a line")
    lines = _lines(source, Path("standard input"))
    inputs = lines if recipe.data.text_pair is None else _pairs(lines)
    first = next(inputs, None)
    if first is None:
        raise DataError("standard input is empty: there is nothing to predict")
    return PredictionJob(folder, _chain(first, inputs), None)


def predictions(
    job: PredictionJob,
    *,
    max_new_tokens: int | None = None,
    progress: Progress | None = None,
) -> Iterator[PredictedInput]:
    """Load the run's model and yield a prediction for each input, in order, as they are made.

    Args:
        job: from `plan_predictions`.
        max_new_tokens: an answer that has not ended by then is cut; None is the recipe's
            `eval.max_new_tokens`.
        progress: told of loading and predicting.

    Raises:
        EtudeError: the run has saved nothing yet, or an input of a stream is damaged.
    """
    from etude.core.progress import SilentProgress
    from etude.tuning.predictor import load

    progress = progress or SilentProgress()
    predictor = _with_length(load(job.run, progress=progress), max_new_tokens)
    progress.start("Predicting", job.total, "inputs")
    try:
        while batch := list(islice(job.inputs, BATCH)):
            made = predictor.predict(batch)
            progress.advance(len(batch))
            yield from map(PredictedInput, batch, made)
    finally:
        progress.finish()


def _with_length(predictor: Predictor, max_new_tokens: int | None) -> Predictor:
    if max_new_tokens is None:
        return predictor
    recipe = predictor.recipe
    spec = recipe.eval.model_copy(update={"max_new_tokens": max_new_tokens})
    return replace(predictor, recipe=recipe.model_copy(update={"eval": spec}))


def _reader(file: Path, recipe: Recipe, column: str | None) -> Callable[[], Iterator[Input]]:
    """Return what reads the inputs of a file, from its beginning at each call."""
    from etude.tuning.data.sources.data_file import DataFile

    tags = recipe.task == "token-classification"
    if tags and column is None and (read := _words_of(file, recipe)) is not None:
        return read
    if DataFile(file).suffix in TEXT_SUFFIXES and not file.is_dir():
        if column is not None:
            raise DataError(f"--column is for a file of rows; {file} has an input a line")
        if recipe.data.text_pair is not None:
            return lambda: _pairs(_lines_of(file))
        return lambda: _lines_of(file)
    key = "data.text" if recipe.task != "chat" else "data.prompt"
    own = recipe.data.text if key == "data.text" else recipe.data.prompt
    chosen, named = (
        (own, f"{key} of the run, or --column") if column is None else (column, "--column")
    )
    if (second := recipe.data.text_pair) is not None:
        return lambda: zip(
            _texts_of(file, chosen, named),
            _texts_of(file, second, "data.text_pair of the run"),
            strict=True,
        )
    return lambda: _texts_of(file, chosen, named)


def _words_of(file: Path, recipe: Recipe) -> Callable[[], Iterator[list[str]]] | None:
    """Return what reads the words of each row of a file; None if its rows have no words."""
    from etude.tuning.data.sources.conll import looks_like_conll
    from etude.tuning.data.sources.data_file import DataFile
    from etude.tuning.data.sources.files import read_rows
    from etude.tuning.data.sources.registry import Row, UnreadableRow
    from etude.tuning.data.tagging.reading import words_reader

    named = DataFile(file)
    if named.suffix in TEXT_SUFFIXES and not (file.is_file() and looks_like_conll(named)):
        return None
    first = next((row for row in read_rows(file) if isinstance(row, Row)), None)
    read = None if first is None else words_reader(recipe.data, first)
    if read is None:
        return None

    def words() -> Iterator[list[str]]:
        for row in read_rows(file):
            if isinstance(row, UnreadableRow):
                raise DataError(row.message)
            yield read(row)

    return words


def _texts_of(file: Path, column: str, named: str) -> Iterator[str]:
    from etude.tuning.data.columns import field_reader
    from etude.tuning.data.sources.files import read_rows
    from etude.tuning.data.sources.registry import UnreadableRow

    read = field_reader(column, named)
    for row in read_rows(file):
        if isinstance(row, UnreadableRow):
            raise DataError(row.message)
        text = read(row)
        if not text.strip():
            raise DataError(f"{row.origin}: the input is empty")
        yield text


def _lines_of(file: Path) -> Iterator[str]:
    from etude.core.errors import did_you_mean
    from etude.tuning.data.sources.data_file import DataFile, decompression_errors

    try:
        with DataFile(file).open_text() as lines:
            yield from _lines(lines, file)
    except FileNotFoundError:
        near = [entry.name for entry in file.parent.iterdir()] if file.parent.is_dir() else []
        raise DataError(f"no data file at {file}{did_you_mean(file.name, near)}") from None
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror or error}") from None
    except UnicodeError as error:
        raise DataError(f"{file} cannot be decoded: {error}") from None
    except decompression_errors() as error:
        raise DataError(f"{file} cannot be decompressed: {error}") from None


def _lines(lines: Iterable[str], origin: Path) -> Iterator[str]:
    from etude.tuning.data.sources.data_file import DataFile

    for number, line in enumerate(lines, start=1):
        if (complaint := DataFile(origin).undecoded(line, number)) is not None:
            raise DataError(complaint)
        if text := line.strip():
            yield text


def _pairs(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(lines, start=1):
        first, tab, second = line.partition("\t")
        if not (tab and first.strip() and second.strip()):
            raise DataError(
                f"input {number} must be two texts with a tab between them: this run classifies "
                "pairs"
            )
        yield first, second


def _chain(first: Input, rest: Iterator[Input]) -> Iterator[Input]:
    yield first
    yield from rest
