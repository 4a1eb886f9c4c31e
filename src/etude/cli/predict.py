"""`etude predict`: a run's answers or classes for many inputs, as JSON lines."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, TextIO, cast

import typer

from etude.cli.complete import complete_run
from etude.cli.full_disk import silence_output
from etude.cli.root import app
from etude.core.atomic_files import is_disk_full
from etude.core.errors import RunError


@app.command(
    epilog="Examples:\n\n"
    "`etude predict latest questions.txt > answers.jsonl`\n\n"
    "`etude predict reviews-2026 reviews.csv --column review | jq -r .label`\n\n"
    "`echo 'a fine film' | etude predict latest`\n\n"
    "`etude predict latest photos/ > classes.jsonl`\n\n"
    "`jq -c '{premise, hypothesis}' pairs.jsonl | etude predict latest -`"
)
def predict(
    run: Annotated[
        str,
        typer.Argument(
            help="A run: `latest`, a name, or a path; or the folder of a classifier's adapter, as "
            "PEFT saves it.",
            autocompletion=complete_run,
        ),
    ],
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[FILE]...",
            help="A text file with one input per line, or a file of rows (JSONL, JSON, CSV, TSV, "
            "Parquet). `-` or no file: standard input, an input or a JSON row per line. For image "
            "classification: images, folders of images, or a file of rows or lines with paths.",
            show_default=False,
        ),
    ] = None,
    column: Annotated[
        str | None,
        typer.Option(
            help="Column with the input, or a template such as `{title}: {text}`. Default: the "
            "run's `data.prompt`, or `data.text` for text classification.",
            show_default=False,
        ),
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Maximum length of an answer, in tokens. Default: the recipe's."),
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder that runs are kept in.")] = Path("runs"),
) -> None:
    """Predict with a fine-tuned model: print one JSON object per input.

    Each object has the `input` and, for a language model, the `answer`; for text classification,
    the `label` (or `labels`) and the `probabilities` of all labels, or the `number`; for token
    classification, the `spans`: their `start` and `end` in characters, `label`, `text` and
    `probability`; for embeddings, the `embedding`; for reranking, the `score` of a query with a
    document, or the `ranking` of a query's `documents`, a column with a list.

    Pairs of texts are two columns, or lines with a tab between the texts. Objects are printed in
    batches as they are made, in the order of the inputs. Blank lines are skipped. A line that
    begins with `{` is a JSON row when the column is in it. A line of standard input that cannot be
    read is named and left out, and the exit status is 2 at the end; a file with such a row is
    refused before anything is predicted. Of images, what cannot be decoded is named and left out,
    and the exit status is 2.
    """
    from etude.app.predict import plan_predictions, predictions
    from etude.tuning.report.live import TerminalProgress

    named = [] if files is None or list(map(str, files)) == ["-"] else files
    source = named or _standard_input()
    job = plan_predictions(run, source, column=column, base=runs, refuse=_name_line)
    # Where results appear on the terminal, they show the progress, and a bar would cut into them.
    progress = TerminalProgress(quiet=sys.stdout.isatty())
    # A bar on the terminal takes sys.stdout over; results go where they were sent.
    out = sys.stdout
    count = 0
    for predicted in predictions(job, max_new_tokens=max_new_tokens, progress=progress):
        try:
            out.write(json.dumps(predicted.as_json(), ensure_ascii=False) + "\n")
            out.flush()
        except OSError as error:
            if not is_disk_full(error):
                raise
            silence_output()
            raise RunError(
                f"the disk is full; {count:,} predictions are kept, a line each, and one after "
                "them may be cut short"
            ) from error
        count += 1
    left_out = f", {len(job.refused):,} left out" if job.refused else ""
    typer.echo(f"{count:,} {'input' if count == 1 else 'inputs'} predicted{left_out}", err=True)
    if job.refused:
        raise typer.Exit(2)


def _name_line(complaint: str) -> None:
    typer.echo(f"left out: {complaint}", err=True)


def _standard_input() -> TextIO:
    stream = cast("TextIO", sys.stdin)
    if stream.isatty():
        typer.echo("One input per line; Ctrl-D ends.", err=True)
    # As data files are read: the first byte that is not UTF-8 is named in the error.
    reconfigure: Any = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(encoding="utf-8", errors="surrogateescape")
    return stream
