"""What several verbs of `etude practice` need: their arguments, and how they print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from etude.core.errors import ProblemError


def slugs(incomplete: str) -> list[str]:
    """Return the names of problems that have what is typed."""
    from etude.practice.problem import shelf_folder

    return sorted(file.parent.name for file in shelf_folder().glob(f"*/{incomplete}*/problem.md"))


Slug = Annotated[
    str,
    typer.Argument(help="A problem's name, from `etude practice list`.", autocompletion=slugs),
]
Names = Annotated[
    list[str] | None, typer.Argument(help="Names of problems. Default: all.", autocompletion=slugs)
]
Shelf = Annotated[
    Path | None,
    typer.Option(
        help="Use this folder of problems instead of those that Etude ships with.",
        file_okay=False,
        exists=True,
    ),
]
NewShelf = Annotated[Path, typer.Option("--shelf", help="Folder of problems.")]
Answer = Annotated[
    Path | None, typer.Argument(help="Your answer. Default: SLUG.py.", dir_okay=False)
]
Require = Annotated[
    list[str] | None,
    typer.Option(
        "--require", help="Refuse to judge without this isolation layer. May be repeated."
    ),
]
OWN_SHELF = Path("content/problems")


def read_answer(slug: str, file: Path | None) -> str:
    """Return the source to submit: of the file named, or of SLUG.py.

    Raises:
        ProblemError: it cannot be read.
    """
    path = file or Path(f"{slug}.py")
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        hint = f"; `etude practice start {slug}` makes it" if file is None else ""
        raise ProblemError(f"{path} cannot be read: {error.strerror}{hint}") from error


def markdown(text: str) -> None:
    """Show Markdown on a terminal, and leave it as it is in a pipe."""
    import sys

    if not sys.stdout.isatty():
        typer.echo(text)
        return
    from rich.console import Console
    from rich.markdown import Markdown

    Console().print(Markdown(text))
