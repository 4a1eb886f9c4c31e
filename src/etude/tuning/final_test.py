"""The test set, `data.test`: opened when everything is chosen, and the opening is recorded.

A figure on samples by which a recipe was chosen looks better than it is. Neither tuning nor a
search reads `data.test`; `final_test` does, and writes test.json into the run's folder: when, with
which adapter, how often, and what was measured. The record is written before a figure is returned,
so no figure is seen that is not recorded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from etude.core.errors import DataError, RecipeError, RunError
from etude.core.progress import Progress
from etude.tuning.config.recipe import Recipe
from etude.tuning.config.sections.named_files import NamedFile
from etude.tuning.data.document_split import read_all
from etude.tuning.data.readers import reader_of
from etude.tuning.data.samples import load_samples, prompt_key
from etude.tuning.data.schema import Sample
from etude.tuning.evaluation import evaluate_run, evaluated_metrics
from etude.tuning.report.details.final_test import opened
from etude.tuning.report.page import write_report
from etude.tuning.runs.folder import RunFolder, list_runs
from etude.tuning.runs.trained_recipe import trained_recipe
from etude.tuning.tasks.held_out import whole_files
from etude.tuning.tasks.registry import task_named


def final_test(
    folder: RunFolder,
    *,
    data: Path | None = None,
    again: bool = False,
    base: bool = False,
    generate: int | None = None,
    progress: Progress | None = None,
    on_message: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Open the test set of a run, evaluate on it and record that.

    Args:
        folder: a finished run.
        data: the test file, where the recipe names none.
        again: open it although it was opened before.
        base: also evaluate the model without its adapter.
        generate: answers to generate; None: the recipe's `eval.generate`.
        progress: reports every stage.
        on_message: see `evaluate_run`.

    Returns:
        The content of test.json. `openings`, the latest last: `at`, `adapter` (SHA-256 of the
        weights) and `results` as `evaluate_run` returns them. `in_training` and `in_evaluation`:
        test samples that are there as well.

    Raises:
        RecipeError: there is no test set, or two.
        RunError: it was opened before and `again` is not set, or the run is not finished.
        DataError: the test set cannot be read, has labels that training never saw, or is the
            training data.
    """
    recipe = trained_recipe(folder)
    files = _named(folder, recipe, data)
    before: dict[str, Any] | None = folder.read_json(folder.test.name)
    if before is not None and not again:
        raise RunError(f"{opened(before)}; to open it once more, which is recorded, add --again")
    weights = _weights(folder)

    def look(_: Any) -> None:
        shared.update(_shared(recipe, files))

    shared: dict[str, int] = {}
    results = evaluate_run(
        folder,
        data=files,
        base=base,
        generate=generate,
        progress=progress,
        on_message=on_message,
        on_data=look,
    )
    content = _content_hash(files)
    opening = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "adapter": weights,
        "content": content,
        "results": results,
    }
    record: dict[str, Any] = {
        "files": [path for file in files for path in file.paths],
        "metrics": [metric.as_json() for metric in evaluated_metrics(folder)],
        **shared,
        "elsewhere": _opened_elsewhere(folder, content),
        "openings": [*(before["openings"] if before else []), opening],
    }
    folder.write_json(folder.test.name, record)
    write_report(folder)
    return record


def _named(folder: RunFolder, recipe: Recipe, data: Path | None) -> list[NamedFile]:
    files = recipe.data.test_files
    if data is not None and files:
        raise RecipeError(
            f"the recipe of {folder.path} names its test set, {files[0].first}; omit --data"
        )
    if data is not None:
        # As the recipe would be, had it named the file.
        spec = {**recipe.data.model_dump(), "test": str(data.expanduser().absolute())}
        fields = {**recipe.model_dump(mode="json"), "data": spec}
        files = Recipe.parse(fields, "--data").data.test_files
    if not files:
        raise RecipeError(
            f"the recipe of {folder.path} names no test set (data.test); name a file of rows that "
            "nothing has seen by --data FILE"
        )
    return files


def _shared(recipe: Recipe, files: Sequence[NamedFile]) -> dict[str, int]:
    """Count the test samples whose text is in the training or the evaluation data.

    Raises:
        DataError: all of them are training data.
    """
    split = task_named(recipe.task).read(recipe)
    tested = [prompt_key(sample) for sample in _samples(recipe, files)]
    trained = {prompt_key(sample) for sample in split.train}
    evaluated = {prompt_key(sample) for sample in split.eval}
    counts = {
        "in_training": sum(key in trained for key in tested),
        "in_evaluation": sum(key in evaluated for key in tested),
    }
    if counts["in_training"] == len(tested):
        raise DataError(
            f"every sample of {files[0].first} is in the training data, so it tests nothing; name "
            "rows that training has not seen"
        )
    return counts


def _samples(recipe: Recipe, files: Sequence[NamedFile]) -> Sequence[Sample]:
    if recipe.task == "language-modeling":
        return read_all(files, recipe.data).samples
    spec = whole_files(recipe.data, files)
    return load_samples(spec, recipe.train.seed, reader_of(recipe.task)).train


def _weights(folder: RunFolder) -> str:
    """Return the SHA-256 of the trained weights: the adapter, or the model."""
    digest = hashlib.sha256()
    for where in (folder.adapter, folder.path / "model"):
        for file in sorted(where.glob("*.safetensors")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _content_hash(files: Sequence[NamedFile]) -> str:
    """Return the SHA-256 of the files; of a folder of texts, of all in it."""
    digest = hashlib.sha256()
    for name in (path for file in files for path in file.paths):
        path = Path(name)
        inside = (
            sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
        )
        for one in inside:
            digest.update(one.read_bytes())
    return digest.hexdigest()


def _opened_elsewhere(folder: RunFolder, content: str) -> list[str]:
    """Return the other runs beside this one that were tested on the same rows."""
    found: list[str] = []
    for run in list_runs(folder.path.parent):
        if run.name == folder.name:
            continue
        try:
            record: dict[str, Any] = run.read_json(run.test.name) or {}
        except RunError:
            continue
        if any(one.get("content") == content for one in record.get("openings", [])):
            found.append(run.name)
    return found
