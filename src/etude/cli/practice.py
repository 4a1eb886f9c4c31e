"""`etude practice`: problems to solve, judged here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from etude.cli import app

if TYPE_CHECKING:
    pass

practice = typer.Typer(
    name="practice",
    help="Coding problems in PyTorch, LLMs, machine learning and vision, judged in a sandbox.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(practice)


def _slugs(incomplete: str) -> list[str]:
    from etude.practice.problem import shelf_folder

    return sorted(file.parent.name for file in shelf_folder().glob(f"*/{incomplete}*/problem.md"))


Slug = Annotated[
    str, typer.Argument(help="A problem's name, from `etude practice list`.", autocompletion=_slugs)
]
Shelf = Annotated[
    Path | None, typer.Option(help="Another folder of problems.", file_okay=False, exists=True)
]


@practice.command("lint")
def lint_problems(
    names: Annotated[
        list[str] | None, typer.Argument(help="Problems; all without.", autocompletion=_slugs)
    ] = None,
    shelf: Shelf = None,
    python: Annotated[
        Path | None,
        typer.Option(
            help="Run the answers with another interpreter, which may have another NumPy."
        ),
    ] = None,
) -> None:
    """Judge each problem's own right and wrong answers, and test its tests.

    Example: `etude practice lint create-tensordataset`
    """
    from rich.progress import track

    from etude.practice.judge.grade import Judge
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
