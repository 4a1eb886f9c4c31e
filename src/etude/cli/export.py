"""`etude export`: an adapter in the format of another program."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from etude.cli.complete import complete_run
from etude.cli.root import app


class Format(StrEnum):
    """What to write."""

    gguf = "gguf"
    peft = "peft"


class Number(StrEnum):
    """How the factors are stored."""

    f32 = "f32"
    f16 = "f16"


def complete_base(incomplete: str) -> list[str]:
    """Return the aliases that start with what is typed."""
    from etude.tuning.models.catalog import CATALOG

    return [alias for alias in CATALOG if alias.startswith(incomplete)]


@app.command(
    epilog="Examples:\n\n"
    "`etude export latest --to gguf --output adapter.gguf`\n\n"
    "`etude export latest --to peft --output adapter`\n\n"
    "`etude export path/to/adapter --to gguf --output adapter.gguf --model base.Q4_K_M.gguf`\n\n"
    "then, with llama.cpp: `llama-cli -m base.gguf --lora adapter.gguf`"
)
def export(
    run: Annotated[
        str,
        typer.Argument(
            help="A run (`latest`, a name, a path) or an adapter's folder.",
            metavar="RUN_OR_ADAPTER",
            autocompletion=complete_run,
        ),
    ],
    to: Annotated[
        Format,
        typer.Option(
            "--to",
            help="`gguf`: a LoRA file that llama.cpp loads. `peft`: a folder for PEFT, quantised "
            "factors decoded to float32.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="File or folder to write.")],
    number: Annotated[
        Number, typer.Option("--type", help="Data type of the stored factors.")
    ] = Number.f32,
    model: Annotated[
        str | None,
        typer.Option(
            help="Base model to use the adapter with, if it is not the one trained on or the "
            "adapter does not name it.",
            autocompletion=complete_base,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the output.")] = False,
    runs: Annotated[Path, typer.Option(help="Folder that runs are kept in.")] = Path("runs"),
) -> None:
    """Write an adapter in the format of llama.cpp or PEFT.

    For llama.cpp (`gguf`), tensors get its names and its order of rows. The scale is exact even
    if modules have different ranks.
    """
    from etude.app.export import export_gguf, export_peft
    from etude.core import units as q

    if to is Format.peft:
        written = export_peft(run, output, runs, overwrite=force)
        before = ", its factors decoded" if written.was_packed else ""
        typer.echo(
            f"{written.folder}: {written.modules} layers, float32{before}, {q.size(written.bytes)}"
        )
        return
    done = export_gguf(run, output, runs, number=number.value, model=model, overwrite=force)
    typer.echo(
        f"{done.file}: {done.modules} layers for {done.architecture}, alpha {done.alpha:g}, "
        f"{number.value}, {q.size(done.file.stat().st_size)}"
    )
    if done.rescaled:
        typer.echo(f"{done.rescaled} of them have another scale, which is in their factor B")
    if done.trained_on_base is False:
        typer.echo(f"note: {done.base} is not the model this adapter was trained on")
