"""`etude practice new | export | import | lint`: author problems."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from etude.cli.practice import practice
from etude.cli.practice.context import OWN_SHELF, Names, NewShelf, Shelf
from etude.core.atomic_files import disk_reason
from etude.core.errors import ProblemError


@practice.command("new", epilog="Example:\n\n`etude practice new llm my-problem`")
def new_problem_folder(
    collection: Annotated[
        str, typer.Argument(help="Collection: pytorch, llm, machine-learning or computer-vision.")
    ],
    slug: Annotated[
        str, typer.Argument(help="Name of the problem: lower-case words joined by hyphens.")
    ],
    title: Annotated[
        str | None, typer.Option(help="Title of the problem. Default: made from the slug.")
    ] = None,
    shelf: NewShelf = OWN_SHELF,
) -> None:
    """Create the folder of a new problem with all its files."""
    from etude.practice.scaffold import new_problem

    folder = new_problem(shelf, collection, slug, title)
    typer.echo(f"made {folder}; then `etude practice lint {slug} --shelf {shelf}`")


@practice.command(
    "export", epilog="Example:\n\n`etude practice export problems.zip create-tensordataset`"
)
def export_zip(
    file: Annotated[Path, typer.Argument(help="Zip file to write.")],
    names: Names = None,
    shelf: Shelf = None,
) -> None:
    """Write problems to a zip file."""
    from etude.practice.bundle import export_problems
    from etude.practice.problem import find_problem, load_shelf

    problems = [find_problem(name, shelf) for name in names] if names else load_shelf(shelf)
    try:
        count = export_problems(problems, file)
    except OSError as error:
        raise ProblemError(f"{file} cannot be written: {disk_reason(error)}") from error
    typer.echo(f"{len(problems)} problems, {count} files in {file}")


@practice.command(
    "import", epilog="Example:\n\n`etude practice import problems.zip --shelf my-problems`"
)
def import_zip(
    file: Annotated[
        Path, typer.Argument(help="A zip file that `etude practice export` wrote.", exists=True)
    ],
    shelf: NewShelf = OWN_SHELF,
) -> None:
    """Import problems from a zip file.

    The judge trusts each problem's tests.py: read it before the first submission.
    """
    from etude.practice.bundle import import_problems

    for problem in import_problems(file, shelf):
        typer.echo(f"{problem.collection}/{problem.slug}: {problem.title}")


@practice.command("lint", epilog="Example:\n\n`etude practice lint create-tensordataset`")
def lint_problems(
    names: Names = None,
    shelf: Shelf = None,
    python: Annotated[
        Path | None,
        typer.Option(help="Run answers with this interpreter, for example one with another NumPy."),
    ] = None,
) -> None:
    """Check problems: judge their right and wrong answers, and test their tests."""
    from rich.progress import track

    from etude.practice.judge.judge import Judge
    from etude.practice.judge.pool import Pool
    from etude.practice.lint import lint
    from etude.practice.problem import find_problem, load_shelf

    problems = [find_problem(name, shelf) for name in names] if names else load_shelf(shelf)
    found = 0
    with Pool(python=str(python) if python else None) as pool:
        judge = Judge(pool)
        for problem in track(problems, description="judging", transient=True):
            for finding in lint(problem, judge):
                typer.echo(str(finding))
                found += 1
    typer.echo(f"{len(problems)} problems, {found} findings")
    if found:
        raise typer.Exit(1)
