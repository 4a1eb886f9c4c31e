"""The command line: one file a verb, each a thin layer over the library.

Verb modules import nothing heavy at the top, so that `etude --help` and tab completion answer
at once; what a verb needs is imported inside its function.
"""

from __future__ import annotations

import sys

import typer

from etude.core.errors import EtudeError

app = typer.Typer(
    name="etude",
    help="Study, practise and do fine-tuning of language models with LoRA and QLoRA.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# Each verb registers itself on `app` when its module is imported: one line a verb.
from etude.cli import adapters as _adapters  # noqa: E402
from etude.cli import chat as _chat  # noqa: E402
from etude.cli import check as _check  # noqa: E402
from etude.cli import data as _data  # noqa: E402
from etude.cli import doctor as _doctor  # noqa: E402
from etude.cli import evaluate as _evaluate  # noqa: E402
from etude.cli import export as _export  # noqa: E402
from etude.cli import memory as _plan  # noqa: E402
from etude.cli import merge as _merge  # noqa: E402
from etude.cli import models as _models  # noqa: E402
from etude.cli import papers as _papers  # noqa: E402
from etude.cli import practice as _practice  # noqa: E402
from etude.cli import recipe as _recipe  # noqa: E402
from etude.cli import runs as _runs  # noqa: E402
from etude.cli import tune as _tune  # noqa: E402

VERBS = (
    _adapters,
    _chat,
    _check,
    _data,
    _doctor,
    _evaluate,
    _export,
    _merge,
    _models,
    _papers,
    _plan,
    _practice,
    _recipe,
    _runs,
    _tune,
)


def main() -> None:
    """Run the command line: an input error is one line on stderr and exit code 2."""
    try:
        app()
    except EtudeError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except BrokenPipeError:
        # The reader (`head`, a closed pager) has seen enough; that is no failure of ours.
        sys.stderr.close()
        sys.exit(0)
