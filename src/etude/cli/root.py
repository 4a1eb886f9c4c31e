"""The application that each verb registers itself on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from etude.core.version import __version__


@dataclass
class Options:
    """Options of the whole command line."""

    debug: bool = False
    """Whether an error is shown with its traceback."""


options = Options()

app = typer.Typer(
    name="etude",
    help="Study, practise and do fine-tuning of language models with LoRA and QLoRA.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"etude {__version__}")
        raise typer.Exit


@app.callback()
def _options(  # pyright: ignore[reportUnusedFunction]
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show where an error comes from (or ETUDE_DEBUG=1).")
    ] = False,
) -> None:
    del version
    options.debug = options.debug or debug
