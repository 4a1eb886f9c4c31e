"""Runs that exist: list, describe, compare, and choose which may be removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from etude.core.errors import RunError

if TYPE_CHECKING:
    from etude.app.run_queue import Queue
    from etude.tuning.report.paired import PairedTest
    from etude.tuning.report.summary import RunResult, Summary
    from etude.tuning.runs.folder import RunFolder


@dataclass(frozen=True)
class RunFacts:
    """What a list says of a run; a run with a damaged file is listed all the same."""

    name: str
    path: Path
    state: str
    """See `etude.tuning.runs.states`."""
    began: Any = None
    updated: Any = None
    """When its state was last written, as recorded."""
    figures: dict[str, Any] = field(default_factory=dict[str, Any])
    """By the names of summary.json: model, task, method, and each metric before and after."""
    steps: int | None = None
    """The last that was recorded."""
    total_steps: int | None = None
    """As planned; None before the first."""
    seconds: float | None = None
    """Of training; None if nothing was recorded."""
    detail: str = ""
    """Why it is in its state; empty where the state says it all."""
    next_step: str = ""
    """What to do, or what happens by itself."""
    place: int | None = None
    """In the queue, from 1."""
    silent_seconds: float | None = None
    """Since the last sign of life of the process at work on it."""
    damaged: str | None = None
    """Why its figures cannot be read."""

    def as_json(self) -> dict[str, Any]:
        """Return plain data, figures on the same level as the rest."""
        facts: dict[str, Any] = {
            "name": self.name,
            "path": str(self.path),
            "state": self.state,
            "began": self.began,
            "updated": self.updated,
            "detail": self.detail,
            "next_step": self.next_step,
            "place": self.place,
            **self.figures,
            "steps": self.steps,
            "total_steps": self.total_steps,
            "seconds": self.seconds,
        }
        return facts if self.damaged is None else {**facts, "damaged": self.damaged}


@dataclass(frozen=True)
class RunDetails:
    """One run with everything that was recorded of it."""

    folder: RunFolder
    facts: RunFacts
    detail: str | None
    """Why it is in its state, such as the error that ended it."""
    summary: Summary
    """Empty unless it finished."""
    environment: dict[str, Any] | None
    test: dict[str, Any] | None
    """When the test set was opened and what was measured, test.json; None before."""

    def as_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            **self.facts.as_json(),
            "detail": self.detail,
            "summary": self.summary,
            "environment": self.environment,
            "test": self.test,
        }


@dataclass(frozen=True)
class RunComparison:
    """Runs side by side."""

    folders: list[RunFolder]
    figures: list[RunResult]
    """A row a run; `method` holds its name."""
    differences: list[tuple[str, list[str]]]
    """Recipe keys that differ, each with its value in each run."""
    tests: list[PairedTest]
    """Each further run against the first, or every pair, on the samples of both, corrected for how
    many they are; without those that share none."""

    def as_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "runs": [
                {
                    **row,
                    "name": row.get("method"),
                    "method": facts_of(folder).figures.get("method"),
                }
                for row, folder in zip(self.figures, self.folders, strict=True)
            ],
            "recipe": {
                key: dict(zip((f.name for f in self.folders), values, strict=True))
                for key, values in self.differences
            },
            "paired_tests": [
                {**asdict(test), "differs": test.differs, "says": test.sentence}
                for test in self.tests
            ],
        }


def list_facts(base: Path = Path("runs")) -> list[RunFacts]:
    """Return the facts of all runs in a folder, the oldest first."""
    from etude.app.run_queue import read_queue
    from etude.tuning.runs.folder import list_runs

    queue = read_queue(base)
    return [facts_of(folder, queue) for folder in list_runs(base)]


def facts_of(folder: RunFolder, queue: Queue | None = None) -> RunFacts:
    """Return the facts of one run.

    Args:
        folder: of the run.
        queue: of its base folder, for a place in it.
    """
    try:
        return _facts_of(folder, queue)
    except (RunError, ValueError, TypeError, AttributeError, KeyError) as error:
        # Whatever is in the files of one run, the others are listed.
        reason = str(error) if isinstance(error, RunError) else f"{folder.path}: a damaged file"
        record = folder.state_record()
        return RunFacts(
            folder.name,
            folder.path,
            folder.state,
            record.get("began"),
            record.get("updated"),
            next_step="put the file right, or remove the run",
            damaged=reason,
        )


def _facts_of(folder: RunFolder, queue: Queue | None) -> RunFacts:
    from etude.app.standing import standing_of
    from etude.tuning.report.summary import RunResult, result_of

    record = folder.state_record()
    summary: dict[str, Any] = folder.read_json("summary.json") or {}
    recent = _recent(folder, with_loss=not summary)
    figures = {key: summary.get(key) for key in ("model", "task", *RunResult.__annotations__)}
    figures |= result_of(summary)
    if not summary:
        figures |= _planned(folder)
        figures["eval_loss"] = recent.get("eval_loss")
    step, total = int(recent.get("step", 0)), recent.get("total_steps")
    standing = standing_of(folder, queue, step=step, total_steps=total)
    return RunFacts(
        name=folder.name,
        path=folder.path,
        state=standing.state,
        began=record.get("began"),
        updated=record.get("updated"),
        figures=figures,
        detail=standing.reason,
        next_step=standing.next_step,
        place=standing.place,
        silent_seconds=standing.silent_seconds,
        steps=step,
        total_steps=total,
        seconds=summary.get("train_seconds", recent.get("seconds")),
        damaged=None if record else f"{folder.path / 'state.json'} cannot be read",
    )


def _recent(folder: RunFolder, *, with_loss: bool) -> dict[str, Any]:
    """Return the last recorded value of each figure, read from the end of the metrics.

    Args:
        folder: of the run.
        with_loss: whether the evaluation loss is wanted, which may be far from the end.
    """
    from etude.app.run_news import records_from_end

    wanted = {"step", "seconds", "total_steps", *(["eval_loss"] if with_loss else [])}
    found: dict[str, Any] = {}
    for record in records_from_end(folder.metrics):
        found = {**{key: record[key] for key in wanted & record.keys()}, **found}
        if found.keys() == wanted:
            break
    return found


def _planned(folder: RunFolder) -> dict[str, Any]:
    """Return method, task and model of a run without a summary, as far as its recipe tells."""
    from etude.core.errors import RecipeError
    from etude.tuning.config.recipe import Recipe

    try:
        recipe = Recipe.read_run(folder.recipe)
    except RecipeError:
        return {}
    return {"method": recipe.method, "task": recipe.task, "model": short_model(recipe.model.id)}


def short_model(model: str) -> str:
    """Return a model's name as a list shows it: of a path, the last part."""
    path = Path(model)
    return path.name if path.is_absolute() or model.startswith(".") else model


def run_details(name: str, base: Path = Path("runs"), *, report: bool = False) -> RunDetails:
    """Return what was recorded of a run.

    Args:
        name: `latest`, a name, the start of one, or a path.
        base: folder that runs are kept in.
        report: write its page (report.html, search.html, folds.html) again first.

    Raises:
        RunError: there is no such run, or a file of it is damaged.
    """
    from etude.app import folds, search
    from etude.app.run_queue import read_queue
    from etude.tuning.report.page import write_report
    from etude.tuning.runs.folder import find_run

    folder = find_run(name, base)
    if report and folder.is_search:
        search.write_report(folder)
    elif report and folder.is_cross_validation:
        folds.write_report(folder)
    elif report:
        write_report(folder)
    return RunDetails(
        folder,
        facts_of(folder, read_queue(folder.path.parent)),
        folder.state_record().get("detail"),
        cast("Summary", folder.read_json("summary.json") or {}),
        folder.read_json("environment.json"),
        folder.read_json(folder.test.name),
    )


def find_runs_to_compare(names: Sequence[str], base: Path = Path("runs")) -> list[RunFolder]:
    """Return two different runs or more, each once.

    Raises:
        RunError: there are fewer, or one does not exist.
    """
    from etude.tuning.runs.folder import find_run

    folders = list({run.name: run for run in (find_run(name, base) for name in names)}.values())
    if len(folders) < 2:
        raise RunError("name two different runs or more")
    return folders


def compare_runs(folders: list[RunFolder], *, every_pair: bool = False) -> RunComparison:
    """Compare runs: their figures, what differs between their recipes, and sample by sample.

    Args:
        folders: two or more.
        every_pair: compare each with each sample by sample; else each with the first.
    """
    from etude.tuning.report.differences import outcomes, recipe_differences
    from etude.tuning.report.paired import paired_tests

    tests = paired_tests(folders, every_pair=every_pair)
    return RunComparison(folders, outcomes(folders), recipe_differences(folders), tests)


def removable(
    base: Path = Path("runs"), *, older_than: timedelta | None = None, failed: bool = False
) -> list[RunFolder]:
    """Return the runs that match all filters given; never one that is running.

    Args:
        base: folder that runs are kept in.
        older_than: only runs whose state was last written at least this long ago.
        failed: only runs that failed or diverged.

    Raises:
        RunError: no filter is given.
    """
    from etude.tuning.runs.folder import list_runs

    if older_than is None and not failed:
        raise RunError("say which runs may go: --older-than 30d, --failed, or both")
    return [
        folder
        for folder in list_runs(base)
        if not folder.is_locked()
        and (not failed or folder.state in ("failed", "diverged"))
        and (older_than is None or _since_last_write(folder) >= older_than)
    ]


def _since_last_write(folder: RunFolder) -> timedelta:
    written = (folder.path / "state.json").stat().st_mtime
    return datetime.now(UTC) - datetime.fromtimestamp(written, UTC)


def size_of(folder: RunFolder) -> int:
    """Return the bytes that a run's files take."""
    return sum(file.lstat().st_size for file in folder.path.rglob("*") if not file.is_dir())
