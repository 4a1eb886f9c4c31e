"""`etude data inspect`: what a model sees of data, token by token."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from etude.cli.complete import complete_recipe, complete_recipe_key
from etude.cli.output import write_output
from etude.cli.root import app

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from etude.tuning.data.inspect import Inspection, Look, Piece

data_app = typer.Typer(no_args_is_help=True, help="Inspect and check data before training.")
app.add_typer(data_app, name="data")

TENSOR_FILES = (".npz", ".safetensors")


@data_app.command(
    "inspect",
    epilog="Examples:\n\n"
    "`etude data inspect rows.jsonl`\n\n"
    "`etude data inspect rows.csv --set data.prompt=question --set data.completion=answer`\n\n"
    "`etude data inspect --recipe docstrings --rows 5`\n\n"
    "`etude data inspect features.npz`",
)
def inspect(
    file: Annotated[
        str | None,
        typer.Argument(
            help="A data file (`-`: standard input); with a recipe for docstrings, a package or "
            "folder. Default: the data of the recipe.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Model whose tokenizer and chat template are used: an alias, a hub id, or a path."
        ),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            help="A recipe that says how rows are read: a YAML file, or a shipped one by name.",
            autocompletion=complete_recipe,
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change one key of the recipe, as in `data.max_length=256`. May be repeated.",
            autocompletion=complete_recipe_key,
        ),
    ] = None,
    rows: Annotated[int, typer.Option(min=0, help="Number of samples to show.")] = 3,
    html: Annotated[
        Path | None, typer.Option(help="Write the samples to this file as a web page, too.")
    ] = None,
) -> None:
    """Show the first samples token by token, and totals over all samples.

    Each token is trained, context or dropped. Only the tokenizer is loaded, no weights.
    """
    from rich.console import Console

    from etude.app.data import inspect_recipe, recipe_for
    from etude.core.errors import DataError
    from etude.tuning.report.live import TerminalProgress

    console = Console(highlight=False)
    if file is not None and Path(file).suffix in TENSOR_FILES:
        _show_tensors(console, file, rows)
        return
    chosen = recipe_for(file, model, recipe, overrides or ())
    inspection = inspect_recipe(chosen, rows, TerminalProgress())
    _show(console, inspection)
    if html is not None:
        from etude.tuning.data.inspect import inspection_page

        write_output(html, inspection_page(inspection, file or str(recipe)))
    if inspection.refused is not None:
        from etude.tuning.data.samples import remedy

        raise DataError(f"{inspection.refused}{remedy(chosen.data, f'{chosen.data.train}')}")


def _show(console: Console, inspection: Inspection) -> None:
    from etude.tuning.data.inspect import totals

    pen = _Pen(console)
    if inspection.looks:
        console.print(pen.legend())
    for look in inspection.looks:
        console.print()
        console.print(pen.sample(look), soft_wrap=pen.plain)
    console.print()
    _table(console, "training" if inspection.eval.samples else "", totals(inspection.train))
    if inspection.eval.samples:
        console.print()
        _table(console, "held out", totals(inspection.eval))
    bars = [(f"{low:,}-{high:,}", count) for low, high, count in inspection.train.histogram]
    if bars:
        console.print("\nsamples by length in tokens")
        _bars(console, bars)
    if inspection.fields:
        console.print()
        _table(console, "columns and keys", inspection.fields)
    for note in inspection.notes:
        console.print(f"\n{note}", markup=False)


_STYLES = {
    "trained": ("black on green3", "black on spring_green2"),
    "context": ("default", "default on grey23"),
    "dropped": ("strike white on red3", "strike white on dark_red"),
}
"""Two of each, in turn, so that neighbouring tokens are told apart."""

_MARKS = {"trained": ("[", "]"), "context": ("", "|"), "dropped": ("~", "~")}


class _Pen:
    """Writes tokens so that their boundaries and states show, with colours or without.

    Without colours (NO_COLOR, a pipe) each trained token stands in [brackets], each dropped one
    in ~tildes~, and bars part the others.
    """

    def __init__(self, console: Console) -> None:
        self.plain = console.no_color or console.color_system is None

    def legend(self) -> Text:
        from rich.text import Text

        from etude.tuning.data.inspect import LEGEND, Piece

        line = Text()
        for state, meaning in LEGEND.items():
            self._write(line, Piece(state, state), False)
            line.append(f" {meaning}   ")
        return line

    def sample(self, look: Look) -> Text:
        from rich.text import Text

        text = Text(f"{look.origin}\n", style="bold")
        body = Text(style="not bold")
        if look.note:
            body.append(f"{look.note}\n", style="italic")
        for number, piece in enumerate(look.pieces):
            self._write(body, piece, number % 2 == 1)
        return text.append_text(body)

    def _write(self, line: Text, piece: Piece, odd: bool) -> None:
        before, after = _MARKS[piece.state] if self.plain else ("", "")
        style = "" if self.plain else _STYLES[piece.state][odd]
        line.append(f"{before}{_visible(piece.text)}{after}", style=style)
        if "\n" in piece.text:
            line.append("\n")


def _visible(text: str) -> str:
    """Make line ends and unprintable characters seen; data may hold a terminal's commands."""
    return "".join(
        character if character.isprintable() else _NAMES.get(character) or f"<{ord(character):x}>"
        for character in text
    )


_NAMES = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}


def _table(console: Console, title: str, rows: list[tuple[str, str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    if title:
        console.print(title, style="bold")
    for name, value in rows:
        table.add_row(Text(name), Text(value))
    console.print(table)


def _bars(console: Console, bars: list[tuple[str, int]]) -> None:
    widest = max(count for _, count in bars)
    label = max(len(name) for name, _ in bars)
    mark = "█" if console.encoding.startswith("utf") else "#"
    for name, count in bars:
        length = -(-40 * count // widest) if widest else 0
        console.print(f"{name:>{label}}  {mark * length} {count:,}", markup=False, soft_wrap=True)


def _show_tensors(console: Console, file: str, rows: int) -> None:
    from etude.tuning.data.tensors import load_tensors, summarize

    dataset = load_tensors(file)
    summary = summarize(dataset)
    _table(
        console,
        "",
        [
            ("samples (N)", f"{summary.samples:,}"),
            ("features (F)", f"{summary.features:,}"),
            *((f"dtype of {name}", dtype) for name, dtype in summary.dtypes.items()),
        ],
    )
    console.print("\nsamples by label")
    shown = summary.labels[:30]
    _bars(console, shown)
    if len(summary.labels) > len(shown):
        console.print(f"... and {len(summary.labels) - len(shown):,} more labels")
    for row in range(min(rows, len(dataset))):
        features, label = dataset[row]
        values = ", ".join(f"{float(value):.4g}" for value in features[:8])
        more = ", ..." if len(features) > 8 else ""
        console.print(f"\nrow {row}: label {label.item():g}, features {values}{more}", markup=False)
