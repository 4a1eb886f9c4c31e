"""The command line: one file a verb, each a thin layer over the library.

Verb modules import nothing heavy at the top, so that `etude --help` and tab completion answer
at once; what a verb needs is imported inside its function.
"""

from __future__ import annotations

import os
import sys
import traceback

import typer

# Each verb registers itself on `app` when its module is imported: one line a verb.
from etude.cli import adapters as _adapters
from etude.cli import chat as _chat
from etude.cli import check as _check
from etude.cli import data as _data
from etude.cli import doctor as _doctor
from etude.cli import evaluate as _evaluate
from etude.cli import export as _export
from etude.cli import jobs as _jobs
from etude.cli import lr_find as _lr_find
from etude.cli import memory as _memory
from etude.cli import merge as _merge
from etude.cli import models as _models
from etude.cli import papers as _papers
from etude.cli import practice as _practice
from etude.cli import predict as _predict
from etude.cli import recipe as _recipe
from etude.cli import runs as _runs
from etude.cli import search as _search
from etude.cli import teacher_scores as _teacher_scores
from etude.cli import tune as _tune
from etude.cli import up as _up
from etude.cli.full_disk import buffer_output, full_disk, silence_output, with_kept
from etude.cli.renamed import refuse_old_names
from etude.cli.root import app, options
from etude.core.errors import EtudeError

VERBS = (
    _adapters,
    _chat,
    _check,
    _data,
    _doctor,
    _evaluate,
    _export,
    _jobs,
    _lr_find,
    _memory,
    _merge,
    _models,
    _papers,
    _practice,
    _predict,
    _recipe,
    _runs,
    _search,
    _teacher_scores,
    _tune,
    _up,
)


def main() -> None:
    """Run the command line: an input error is one line on stderr and exit code 2.

    With ETUDE_DEBUG set, the traceback comes before the line.
    """
    words = sys.argv[1:]
    buffer_output()
    options.debug = bool(os.environ.get("ETUDE_DEBUG"))
    try:
        refuse_old_names(words)
        try:
            app()
        finally:
            # Not at the interpreter's end, where a disk that is full is a traceback.
            sys.stdout.flush()
    except EtudeError as error:
        if options.debug:
            traceback.print_exc()
        typer.echo(f"error: {with_kept(error, words)}", err=True)
        sys.exit(2)
    except BrokenPipeError:
        # The reader (`head`, a closed pager) has seen enough; that is no failure of ours.
        silence_output()
        sys.stderr.close()
        sys.exit(0)
    except Exception as error:
        line = full_disk(error, words)
        if line is None:
            raise
        silence_output()
        typer.echo(f"error: {line}", err=True)
        sys.exit(2)
