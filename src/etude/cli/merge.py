"""`etude merge`: merge an adapter into its base model."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from etude.cli.complete import complete_run
from etude.cli.root import app


class BaseWeights(StrEnum):
    """Which weights the adapter is added to."""

    dequantized = "dequantized"
    original = "original"


@app.command(
    epilog="Examples:\n\n"
    "`etude merge latest --output merged`\n\n"
    "`etude merge runs/docstrings-20260701-142501 --output merged --dtype float32`\n\n"
    "`etude merge path/to/adapter --output merged --model smollm2-135m`"
)
def merge(
    run: Annotated[
        str,
        typer.Argument(
            help="A run (`latest`, a name, a path) or an adapter's folder.",
            metavar="RUN_OR_ADAPTER",
            autocompletion=complete_run,
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")],
    base: Annotated[
        BaseWeights | None,
        typer.Option(
            help="Weights to merge into. Default: those trained on, so for a 4-bit base the "
            "dequantised ones, whose rounding error the adapter has learnt to compensate.",
        ),
    ] = None,
    dtype: Annotated[
        str, typer.Option(help="`float32`, `bfloat16`, `float16`, or `auto`.")
    ] = "auto",
    model: Annotated[
        str | None,
        typer.Option(help="Base model, if the adapter does not name it or it has moved."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the output folder.")] = False,
    runs: Annotated[Path, typer.Option(help="Folder that runs are kept in.")] = Path("runs"),
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print results only.")] = False,
) -> None:
    """Merge an adapter into its base model, for programs that do not load adapters.

    The merged model is read back and its logits are compared with those of base and adapter; a
    merge that differs is not kept. Adapters are never merged into 4-bit weights, whose rounding
    would undo them.
    """
    from etude.app.export import merge_run
    from etude.tuning.report.live import TerminalProgress

    report = merge_run(
        run,
        output,
        runs,
        base=base.value if base else None,
        dtype=dtype,
        model=model,
        overwrite=force,
        progress=TerminalProgress(quiet=quiet),
    )
    typer.echo(
        f"{report.folder}: {report.modules} layers merged into the {report.base} base, "
        f"{str(report.dtype).removeprefix('torch.')}"
    )
    typer.echo(
        f"logits differ from base and adapter by at most {report.largest_difference:.2g} "
        f"({report.difference:.2g} on average; the adapter's own effect is {report.effect:.2g})"
    )
    if report.peft_difference is not None:
        typer.echo(f"and from what PEFT computes by {report.peft_difference:.2g} on average")
