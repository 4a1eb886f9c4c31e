"""Comparison of QLoRA, LoRA and full fine-tuning on the same data.

Methods run one after the other, each in a process of its own, so that the measured peak memory and
time are those of that method alone.
"""

from __future__ import annotations

import multiprocessing
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, cast

from etude.core.errors import EtudeError, RunError
from etude.tuning.config.recipe import Recipe
from etude.tuning.pipeline import Run, tune
from etude.tuning.report.page import write_report
from etude.tuning.report.summary import RunResult, result_of
from etude.tuning.report.terminal import TerminalView
from etude.tuning.runs.folder import RunFolder, list_runs
from etude.tuning.training.interrupt import stop_request

Method = Literal["qlora", "lora", "full"]
METHODS: tuple[Method, ...] = ("qlora", "lora", "full")


def compare_methods(run: Run, recipe: Recipe, *, quiet: bool = False) -> list[RunResult]:
    """Run the methods that `run` did not use; add the comparison to its summary and report.

    The runs are stored in `<run>/compare/`; a stopped comparison resumes where it left off.

    Returns:
        One row per method, in the order of METHODS; a head alone last.

    Raises:
        RunError: a method failed or was stopped.
    """
    folder = RunFolder.open(run.folder)
    rows: dict[str, dict[str, Any]] = {recipe.method: run.summary}
    for method in METHODS:
        if method not in rows:
            rows[method] = _run_apart(recipe.with_method(method), run.folder / "compare", quiet)
    table = [_row(rows[method]) for method in (*METHODS, "head") if method in rows]
    with folder:
        folder.write_json("summary.json", {**run.summary, "compare": table})
        write_report(folder)
    return table


def _row(summary: dict[str, Any]) -> RunResult:
    return cast("RunResult", {"seconds": summary["train_seconds"], **result_of(summary)})


def _run_apart(recipe: Recipe, base: Path, quiet: bool) -> dict[str, Any]:
    """Run a recipe in a fresh process and return its summary."""
    named = recipe.model_copy(update={"name": recipe.method})
    done = _finished(named, base)
    if done is None:
        context = multiprocessing.get_context("spawn")
        reports, report = context.Pipe(duplex=False)
        process = context.Process(
            target=_child, args=(named.model_dump(mode="json"), str(base), quiet, report)
        )
        process.start()
        report.close()
        # Ctrl-C reaches both processes; the child writes a checkpoint.
        with stop_request():
            process.join()
        done = _finished(named, base)
        with suppress(EOFError):  # it ended without an error to report
            raise RunError(f"the {recipe.method} run of the comparison failed: {reports.recv()}")
    if done is None:
        raise RunError(
            f"the {recipe.method} run of the comparison did not finish; see {base}. "
            "Its progress is saved: run the same command with --resume on that run"
        )
    return done


def _finished(recipe: Recipe, base: Path) -> dict[str, Any] | None:
    for folder in reversed(list_runs(base)):
        if folder.state == "finished" and Recipe.read_run(folder.recipe) == recipe:
            return folder.read_json("summary.json")
    return None


def _child(fields: dict[str, Any], base: str, quiet: bool, report: Connection) -> None:
    recipe = Recipe.parse(fields)
    view = TerminalView(quiet=quiet)
    view.on_message(f"\ncomparison: {recipe.method}")
    waiting = [f for f in list_runs(base) if f.state in ("stopped", "killed")]
    same = [f for f in waiting if Recipe.read_run(f.recipe) == recipe]
    resume = same[-1] if same else None
    try:
        tune(recipe, base=base, resume=resume, callbacks=[view], progress=view.progress)
    except EtudeError as error:
        report.send(str(error))
