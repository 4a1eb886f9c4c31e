"""`etude papers`: collect, summarise, search and rank arXiv papers.

One file for each group of commands: collecting, reading, feedback, export.
"""

from __future__ import annotations

import typer

from etude.cli.root import app

papers = typer.Typer(
    name="papers",
    help="Collect, summarise, search and rank the latest arXiv papers in vision, "
    "language and learning.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(papers)


@papers.callback()
def _need_libraries() -> None:
    """Say what to install where only the engine is installed."""
    from etude.core.extras import require_extra

    needed = ("sqlalchemy", "alembic", "tantivy", "defusedxml", "sklearn")
    require_extra("papers", "etude papers", *needed)


# In the order in which `--help` lists them.
# isort: off
from etude.cli.papers import collect as _collect  # noqa: E402
from etude.cli.papers import reading as _reading  # noqa: E402
from etude.cli.papers import feedback as _opinions  # noqa: E402
from etude.cli.papers import export as _out  # noqa: E402

VERBS = (_collect, _reading, _opinions, _out)
