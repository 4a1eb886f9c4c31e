"""`etude practice`: coding problems, judged on this machine.

One file for each role: solving problems, running a judge, authoring problems.
"""

from __future__ import annotations

import typer

from etude.cli.root import app

practice = typer.Typer(
    name="practice",
    help="Coding problems in PyTorch, LLMs, machine learning and vision, judged in a sandbox.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(practice)


@practice.callback()
def _need_database() -> None:
    """Say what to install where only the engine is installed."""
    from etude.core.extras import require_extra

    require_extra("practice", "etude practice", "sqlalchemy", "alembic")


# In the order in which `--help` lists them.
# isort: off
from etude.cli.practice import solving as _solving  # noqa: E402 - they register on `practice`
from etude.cli.practice import stats as _standing  # noqa: E402
from etude.cli.practice import judging as _judging  # noqa: E402
from etude.cli.practice import authoring as _authoring  # noqa: E402

VERBS = (_solving, _standing, _judging, _authoring)
