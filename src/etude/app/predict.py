"""Predictions of a run for many inputs: read from a file or a stream, made in batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from etude.app.predict_inputs import Input, InputReader, Refuse
from etude.core.errors import DataError

if TYPE_CHECKING:
    from etude.core.progress import Progress
    from etude.tuning.config.recipe import Recipe
    from etude.tuning.predictor import Predictor
    from etude.tuning.runs.folder import RunFolder
    from etude.tuning.tasks.base import Prediction

BATCH = 64
"""Inputs that are predicted at a time."""


@dataclass(frozen=True)
class PredictedInput:
    """An input, and what the model gave it."""

    input: Input
    prediction: Prediction

    def as_json(self) -> dict[str, Any]:
        """Return plain data: `input`, and what the task predicts (`answer`, `label`, ...)."""
        shown: Any = self.input if isinstance(self.input, str) else list(self.input)
        if isinstance(self.input, tuple) and not isinstance(self.input[1], str):
            shown = self.input[0]  # the documents are in the ranking
        return {"input": shown, **self.prediction.as_json()}


@dataclass(frozen=True)
class PredictionJob:
    """Inputs that were checked, and the run that predicts them."""

    run: RunFolder | Path
    """A run, or the folder of an adapter."""
    inputs: Iterator[Input]
    total: int | None
    """Number of inputs; None if they come from a stream."""
    refused: list[str] = field(default_factory=list[str])
    """What was wrong with each line of a stream that could not be read so far."""


def plan_predictions(
    run: str,
    source: Path | list[Path] | Iterable[str],
    *,
    column: str | None = None,
    base: Path = Path("runs"),
    refuse: Refuse | None = None,
) -> PredictionJob:
    """Find the run and check its inputs, before any weights are read.

    A file is read to its end once to check it, so an error in its last row costs no predictions;
    a stream is checked as it is read.

    Args:
        run: `latest`, a name, or a path; or the folder of a classifier's adapter, as PEFT saves it.
        source: a file of rows (JSONL, JSON, CSV, TSV, Parquet) or of lines (.txt), or a stream of
            lines; for a run of images, files and folders. Blank lines are skipped. A line is an
            input, or a JSON row with the run's columns; of a run that reads pairs, also two
            texts with a tab between them.
        column: of rows: the column with the input, or a template of columns such as
            `{title}: {text}`. None is the run's own: `data.prompt`, or `data.text` of a
            run that reads texts; words where the rows of a token classification have them.
        base: folder that runs are kept in.
        refuse: called with what is wrong with each line of a stream that cannot be read, which is
            left out. None: the first such line ends the predictions.

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
    paths = _paths(source)
    if recipe.task == "image-classification":
        return _images(folder, recipe, source if paths is None else paths, column, refuse)
    if paths is not None and len(paths) > 1:
        raise DataError("name one file: only images may be several")
    if paths is not None:
        source = paths[0]
        total = sum(1 for _ in InputReader(recipe, column).of_file(source))
        if not total:
            raise DataError(f"{source} holds no inputs")
        return PredictionJob(folder, InputReader(recipe, column).of_file(source), total)
    refused: list[str] = []

    def leave_out(complaint: str) -> None:
        if refuse is None:
            raise DataError(complaint)
        refused.append(complaint)
        refuse(complaint)

    inputs = InputReader(recipe, column).of_lines(
        cast("Iterable[str]", source), "standard input", leave_out
    )
    first = next(inputs, None)
    if first is None:
        raise DataError(
            "no line of standard input can be read"
            if refused
            else "standard input is empty: there is nothing to predict"
        )
    return PredictionJob(folder, _chain(first, inputs), None, refused)


def _paths(source: Path | list[Path] | Iterable[str]) -> list[Path] | None:
    """Return the files that were named; None for a stream of lines."""
    if isinstance(source, Path):
        return [source]
    if not isinstance(source, list):
        return None
    listed = cast("list[Any]", source)
    return listed if listed and all(isinstance(one, Path) for one in listed) else None


def _images(
    folder: RunFolder | Path,
    recipe: Recipe,
    source: list[Path] | Any,
    column: str | None,
    refuse: Refuse | None,
) -> PredictionJob:
    """Check that each image can be decoded; those that cannot are left out and named.

    Raises:
        DataError: there are no images, or, without `refuse`, one cannot be decoded.
    """
    from etude.app.predict_inputs import image_paths
    from etude.tuning.images.decode import UnreadableImageError, decode

    refused: list[str] = []
    found: list[Input] = []
    for path in image_paths(source, recipe, column):
        try:
            decode(path)
        except UnreadableImageError as error:
            if refuse is None:
                raise
            refused.append(str(error))
            refuse(str(error))
        else:
            found.append(str(path))
    if not found:
        raise DataError("no image to predict" + (f": {refused[0]}" if refused else ""))
    return PredictionJob(folder, iter(found), len(found), refused)


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


def _chain(first: Input, rest: Iterator[Input]) -> Iterator[Input]:
    yield first
    yield from rest
