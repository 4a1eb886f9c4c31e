"""Searching for a recipe: which space, in which folder; going on with a search; its result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etude.core.errors import RecipeError, RunError

if TYPE_CHECKING:
    from etude.app.tune import DataOptions
    from etude.tuning.runs.folder import RunFolder
    from etude.tuning.search.driver import View
    from etude.tuning.search.record import SearchRecord
    from etude.tuning.search.space import Space


@dataclass(frozen=True)
class PlannedSearch:
    """A search that can be started."""

    space: Space
    resume: RunFolder | None = None
    """The search to go on with; None for a new one."""
    notes: tuple[str, ...] = ()
    """What was decided, for the user."""


@dataclass(frozen=True)
class SearchResult:
    """A search that ended, or was stopped."""

    folder: RunFolder
    finished: bool
    record: SearchRecord

    @property
    def best_recipe(self) -> Path:
        """The winner's recipe."""
        return self.folder.path / BEST

    def as_json(self) -> dict[str, Any]:
        """Return plain data."""
        from dataclasses import asdict

        return {
            "folder": str(self.folder.path),
            "finished": self.finished,
            "metric": self.record.metric.as_json(),
            "selection": asdict(self.record.selection),
            "importance": dict(self.record.importance),
            "trained": self.record.trained,
            "seconds": self.record.seconds,
            "trials": [trial.as_json() for trial in self.record.trials],
            "recipe": str(self.best_recipe) if self.best_recipe.exists() else None,
        }


BEST = "best.yaml"


def plan_search(
    space: str | Path | None,
    overrides: Sequence[str] = (),
    *,
    task: str | None = None,
    model: str | None = None,
    data: DataOptions | None = None,
    settings: dict[str, Any] | None = None,
) -> PlannedSearch:
    """Return a new search.

    Args:
        space: a YAML file, or the name of a shipped space or recipe; a recipe without ranges is
            searched over those of its method. None: the shipped recipe of the task.
        overrides: `dotted.key=value`; the value may be a range.
        task: a task; None: the recipe's, or read from the data without a recipe.
        model: the base model instead of the recipe's.
        data: what to train and evaluate on instead.
        settings: of the section `search`, by key; None values are left as they are.

    Raises:
        RecipeError: the space is missing or invalid.
        DataError: the task or the columns cannot be read from the data.
        MissingExtraError: Optuna is not installed.
    """
    from etude.app.tune import DataOptions, recipe_and_changes
    from etude.tuning.config.shipped import find_space
    from etude.tuning.search.settings import SearchSettings
    from etude.tuning.search.space import read_space
    from etude.tuning.search.storage import require_optuna
    from etude.tuning.tasks.detect import resolved

    require_optuna()
    data = data or DataOptions()
    file, changes, notes = recipe_and_changes(space, overrides, task=task, model=model, data=data)
    found = read_space(find_space(file), changes, data=data.train)
    found.default.require_data()
    default, decided = resolved(found.default)
    given = {key: value for key, value in (settings or {}).items() if value is not None}
    chosen = SearchSettings.parse({**found.settings.model_dump(), **given}, "options")
    found = replace(found, default=default, settings=chosen)
    if found.settings.halving is None and found.settings.against:
        notes.append("several objectives: trials are trained in full, without halving")
    return PlannedSearch(found, notes=(*notes, *decided, *found.notes))


def plan_search_resumption(
    search: str,
    base: Path = Path("runs"),
    *,
    same_as: PlannedSearch | None = None,
    settings: dict[str, Any] | None = None,
) -> PlannedSearch:
    """Return a search to go on with.

    Args:
        search: `latest`, a name, or a path.
        base: folder that runs are kept in.
        same_as: a search by the space that was named beside it; it must be the same.
        settings: `trials`, `minutes` and `metric` may change.

    Raises:
        RunError: there is no such search, or it is of another space.
        RecipeError: another setting is to change.
    """
    from etude.tuning.search.settings import SearchSettings
    from etude.tuning.search.storage import JOURNAL, require_optuna

    require_optuna()
    folder = find_search(search, base)
    found = read_search(folder)
    if same_as is not None and (differing := different_keys(found, same_as.space)):
        verb = "differ" if len(differing) > 1 else "differs"
        raise RunError(
            f"{folder.path} is a search of another space ({found.origin}): "
            f"{', '.join(differing)} {verb}; start a new search without --resume"
        )
    given = {key: value for key, value in (settings or {}).items() if value is not None}
    fixed = [key for key in given if key not in ("trials", "minutes", "metric")]
    if fixed:
        raise RecipeError(
            f"--resume goes on with the search as it was begun; of its settings --trials, "
            f"--minutes and --metric may change, not {fixed[0]}"
        )
    began_with = {**found.settings.model_dump(), "minutes": None, **given}
    chosen = SearchSettings.parse(began_with, "options")
    if chosen.metric != found.settings.metric and (folder.path / JOURNAL).exists():
        raise RecipeError(
            f"{folder.path} is compared by {found.settings.metric or 'the metric of its task'} "
            "since its first trial; start a new search for another metric"
        )
    return PlannedSearch(replace(found, settings=chosen), folder)


def different_keys(first: Space, second: Space) -> list[str]:
    """Return the ranges, and the other keys of the recipe, in which two spaces differ."""
    from etude.tuning.config.recipe import Recipe
    from etude.tuning.config.reference import flatten
    from etude.tuning.data.sources import standard_input
    from etude.tuning.settle import settled

    found: dict[str, list[Any]] = {}
    ignored = ["name"]
    for space in (first, second):
        recipe = space.default
        if recipe.data.train == standard_input.NAME:
            ignored.append("data.train")  # it was stored, and is not read again to compare
        else:
            recipe = settled(recipe, Path())
        values = flatten(recipe.model_dump(mode="json"), Recipe)
        values |= {one.key: one.as_json() for one in space.ranges}
        for key, value in values.items():
            found.setdefault(key, []).append(value)
    return [
        key
        for key, values in found.items()
        if key not in ignored and (len(values) < 2 or values[0] != values[1])
    ]


def find_search(name: str, base: Path = Path("runs")) -> RunFolder:
    """Return a search by `latest`, a name, the start of one, or a path.

    Raises:
        RunError: there is none, or it is a run.
    """
    from etude.tuning.runs.folder import find_run, list_runs

    searches = [run for run in list_runs(base) if run.is_search]
    if name == "latest":
        if not searches:
            raise RunError(f"there is no search in {base} yet; start one with: etude search RECIPE")
        return searches[-1]
    folder = find_run(name, base)
    if not folder.is_search:
        raise RunError(f"{folder.path} is a run, not a search: etude tune --resume goes on with it")
    return folder


def read_search(folder: RunFolder) -> Space:
    """Return the space of a search.

    Raises:
        RunError: search.json is missing or damaged.
    """
    from etude.tuning.search.space import Space

    content = folder.read_json(folder.search.name)
    try:
        return Space.from_json(content)
    except (TypeError, KeyError, RecipeError) as error:
        raise RunError(f"{folder.search} is damaged: {error}") from None


def start(
    plan: PlannedSearch,
    *,
    base: Path = Path("runs"),
    view: View,
    stopping: Callable[[], bool] = lambda: False,
) -> SearchResult:
    """Start or go on with a search, and wait for its end.

    Args:
        plan: from `plan_search` or `plan_search_resumption`.
        base: folder in which the search's folder is made.
        view: shows it.
        stopping: whether it is to stop at the next safe point.

    Raises:
        EtudeError: see `Search.run`; what is finished is kept.
    """
    from etude.tuning.runs.folder import RunFolder
    from etude.tuning.runs.process import Heartbeat
    from etude.tuning.search.driver import Search
    from etude.tuning.search.record import SearchRecord
    from etude.tuning.settle import settled, with_runs_found

    space = plan.space
    with plan.resume or RunFolder.create(f"{space.default.name}-search", base) as folder:
        try:
            if plan.resume is None:
                default = with_runs_found(space.default, base)
                space = replace(space, default=settled(default, folder.path))
            folder.write_json(folder.search.name, space.as_json())
            folder.write_text(folder.recipe.name, space.default.to_yaml())
            folder.clear_stop()
            folder.set_state("running")
            with Heartbeat(folder.heartbeat):
                state = Search(folder, space, view, stopping).run()
        except BaseException as error:
            note_failure(folder, error, new=plan.resume is None)
            raise
        record = SearchRecord.read(folder)
        assert record is not None
        if state == "finished":
            conclude(folder, space, record)
        folder.set_state(state, _detail(record, space))
        write_report(folder)
        return SearchResult(folder, state == "finished", record)


def conclude(folder: RunFolder, space: Space, record: SearchRecord) -> None:
    """Write the winner's recipe and figures: best.yaml, summary.json."""
    from etude.tuning.config.recipe import Recipe
    from etude.tuning.runs.folder import RunFolder
    from etude.tuning.search.driver import trials_of
    from etude.tuning.search.view import metric_text

    best = record.trial(record.selection.best)
    if best is None:
        return
    run = RunFolder(trials_of(folder.path) / best.run)
    recipe = Recipe.read_run(run.recipe).model_copy(update={"name": space.default.name})
    head = (
        f"# The best of {record.begun} trials of {folder.name}: trial {best.number}, "
        f"{record.metric.title} {metric_text(best, record)} on the evaluation samples.\n#\n"
        f"#   etude tune {folder.path / BEST}\n\n"
    )
    folder.write_text(BEST, head + recipe.to_yaml())
    summary: dict[str, Any] = run.read_json(run.summary.name) or {}
    searched = {
        "trials": record.begun,
        "trained": round(record.trained, 3),
        "best": best.run,
        "seconds": record.seconds,
    }
    folder.write_json(folder.summary.name, {**summary, "name": folder.name, "search": searched})


def write_report(folder: RunFolder) -> None:
    """Write search.html again.

    Raises:
        RunError: a file of the search is damaged, or the page cannot be written.
    """
    from etude.tuning.search.page import write_search_report

    write_search_report(folder, read_search(folder))


@dataclass(frozen=True)
class SearchOverview:
    """What the app shows of a search beside its report."""

    lede: str
    conclusions: list[tuple[str, str]]
    """Label and text: default, best, cheapest, ..."""
    command: str
    """That tunes by the winner's recipe; empty before there is one."""
    columns: list[str]
    rows: list[dict[str, Any]]
    """`number`, `name`, `state`, `cells`, `reason` and `best` of each trial, the best first."""


def overview(folder: RunFolder) -> SearchOverview | None:
    """Return what a search has found by now; None before its first trial.

    Raises:
        RunError: a file of it is damaged.
    """
    from etude.tuning.search.page import search_content
    from etude.tuning.search.record import SearchRecord

    record = SearchRecord.read(folder)
    if record is None:
        return None
    content = search_content(folder, read_search(folder), record)
    table = content["table"]
    return SearchOverview(
        content["lede"],
        content["conclusions"],
        content["command"],
        table["columns"],
        table["rows"],
    )


def trials_stamp(folder: RunFolder) -> str:
    """Return a text that changes whenever a trial of a search begins, gets further or ends."""
    from etude.tuning.search.record import TRIALS

    try:
        status = (folder.path / TRIALS).stat()
    except OSError:
        return "none"
    return f"{status.st_mtime_ns}.{status.st_size}"


def _detail(record: SearchRecord, space: Space) -> str:
    best = record.trial(record.selection.best)
    said = f"{record.begun} of {space.settings.trials} trials"
    if best is None or best.value is None:
        return said
    return f"{said}; best {record.metric.title} {record.metric.text(best.value)}, {best.run}"


def note_failure(folder: RunFolder, error: BaseException, *, new: bool) -> None:
    """Record why a search or a cross-validation ended.

    A new one without a step of a trial leaves nothing behind.
    """
    from contextlib import suppress

    from etude.core.errors import EtudeError, innermost_reason
    from etude.tuning.runs.folder import list_runs, remove_run

    trials = list_runs(folder.path / "trials")
    if new and not any(run.has_steps() for run in trials):
        with suppress(RunError):
            remove_run(folder)
        return
    with suppress(RunError):
        if isinstance(error, KeyboardInterrupt):
            folder.set_state("stopped", "stopped at once")
        elif isinstance(error, EtudeError):
            folder.set_state("failed", str(error))
        else:
            folder.set_state("failed", f"{type(error).__name__}: {innermost_reason(error)}")
