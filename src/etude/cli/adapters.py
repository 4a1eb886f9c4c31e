"""`etude adapters`: show and combine saved adapters."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from etude.cli.complete import complete_run
from etude.cli.root import app

group = typer.Typer(no_args_is_help=True, help="Show and combine saved adapters.")
app.add_typer(group, name="adapters")

_ONE = Annotated[
    str,
    typer.Argument(
        help="A run (`latest`, a name, a path) or an adapter's folder.",
        metavar="RUN_OR_ADAPTER",
        autocompletion=complete_run,
    ),
]
_RUNS = Annotated[Path, typer.Option(help="Folder that runs are kept in.")]


class Method(StrEnum):
    """How changes are added up."""

    exact = "exact"
    svd = "svd"
    linear = "linear"


@group.command(epilog="Example: `etude adapters show latest`")
def show(run: _ONE, runs: _RUNS = Path("runs")) -> None:
    """Show an adapter's kind, rank, modules, size and base model."""
    from rich.console import Console
    from rich.table import Table

    from etude.core import units as q
    from etude.tuning.adapters.read import read_adapter

    folder = _folder(run, runs)
    saved = read_adapter(folder)
    ranks = sorted({part.rank for part in saved.parts.values()})
    numbers = sum(t.numel() for part in saved.parts.values() for t in part.tensors.values())
    stored = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    rows = [
        ("kind", saved.kind),
        (
            "rank",
            " to ".join(map(str, dict.fromkeys((ranks[0], ranks[-1])))) if any(ranks) else "none",
        ),
        ("adapted layers", f"{len(saved.parts):,}"),
        ("numbers", f"{numbers:,}"),
        ("stored", q.size(stored)),
        ("base", saved.base or "not said"),
    ]
    if saved.modules:
        rows.insert(3, ("trained whole", ", ".join(saved.modules)))
    note = saved.provenance
    if note is not None:
        quant = note.quant
        held = quant.kind if quant.kind == "none" else f"{quant.kind}, block {quant.block}"
        rows.append(("base held as", held))
        rows.append(("fingerprint", note.fingerprint[:12]))
        if note.factors.bits is not None:
            rows.append(("factors", f"{note.factors.bits} bits, a scale a {note.factors.scale}"))
        if note.init != "default":
            rows.append(("init", f"{note.init}: half of each rank was taken off the base"))
    table = Table.grid(padding=(0, 2, 0, 0))
    for name, value in rows:
        table.add_row(name, value)
    Console().print(table)


@group.command(
    epilog="Examples:\n\n`etude adapters combine runs/law:0.7 runs/medicine:0.3 -o both`\n\n"
    "`etude adapters combine chat:1 rude:-0.5 --method svd --rank 16 -o polite`"
)
def combine(
    parts: Annotated[
        list[str],
        typer.Argument(
            help="Runs or adapter folders, each with its weight, as in `RUN:0.7`.",
            metavar="RUN_OR_ADAPTER:WEIGHT...",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")],
    method: Annotated[
        Method,
        typer.Option(
            help="`exact`: concatenate the factors, so that ranks add up. `svd`: the best "
            "approximation of rank `--rank`. `linear`: sum the factors, as PEFT does.",
        ),
    ] = Method.exact,
    rank: Annotated[
        int | None,
        typer.Option(
            min=1, help="Rank of the result with `svd`. Default: the largest rank of the adapters."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the output folder.")] = False,
    runs: _RUNS = Path("runs"),
) -> None:
    """Write the weighted sum of adapters of one base as a new adapter."""
    from etude.core import units as q
    from etude.tuning.adapters.combine import combine_folders

    weights = [_weighted(part, runs) for part in parts]
    done = combine_folders(weights, output, method=method.value, rank=rank, overwrite=force)
    low, high = done.ranks
    shown = f"rank {low}" if low == high else f"ranks {low} to {high}"
    typer.echo(f"{done.folder}: {done.modules} layers, {shown}, {q.size(done.bytes)}")


@group.command(
    epilog="Examples:\n\n`etude adapters average seed-1 seed-2 seed-3`\n\n"
    "`etude adapters average seed-1 seed-2 seed-3 --rank 16 -o runs/soup --data dev.csv`"
)
def average(
    parts: Annotated[
        list[str],
        typer.Argument(
            help="Two finished runs or more, of one base and one task.",
            metavar="RUN...",
            autocompletion=complete_run,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder to write. Default: a new one among the runs."),
    ] = None,
    rank: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Rank of the average, as the nearest to it. Default: the sum of the ranks, which "
            "is exact.",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Measure on this file. Default: what the first run held out."),
    ] = None,
    runs: _RUNS = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Average runs of several seeds into a run of its own, and measure all on the same samples.

    A better average is not a matter of course; what is gained is printed, whatever it is.
    """
    import json

    from etude.app.export import average_adapters
    from etude.cli.runs import print_table
    from etude.core import units as q
    from etude.tuning.report.live import TerminalProgress

    soup = average_adapters(
        parts, runs, output, rank=rank, data=data, progress=TerminalProgress(quiet=as_json)
    )
    if as_json:
        typer.echo(json.dumps(soup.results, indent=2))
        return
    names = list(soup.results)
    shown = [(soup.metric.title, soup.metric.name)] if soup.metric.name != "eval_loss" else []
    rows = [
        (
            name,
            q.loss(soup.results[name]["loss"]),
            *(
                f"{soup.metric.text(soup.results[name][key])} "
                f"{soup.metric.error_text(soup.results[name]['standard_errors'].get(key))}".strip()
                for _, key in shown
            ),
            q.number(soup.results[name]["samples"]),
        )
        for name in names
    ]
    print_table(("", "loss", *(title for title, _ in shown), "samples"), rows)
    typer.echo(f"\n{soup.gain}")
    if soup.test is not None:
        typer.echo(soup.test.sentence)
    low, high = soup.combined.ranks
    ranks = f"rank {low}" if low == high else f"ranks {low} to {high}"
    exact = "exact" if rank is None else "the nearest of that rank"
    typer.echo(f"{soup.folder.path}: {ranks}, {exact}, {q.size(soup.combined.bytes)}")


def _weighted(part: str, runs: Path) -> tuple[Path, float]:
    from etude.core.errors import AdapterError

    name, _, weight = part.rpartition(":")
    try:
        value = float(weight if name else "")
    except ValueError:
        raise AdapterError(f"{part!r} has no weight: write it as in {part}:0.5") from None
    return _folder(name, runs), value


def _folder(run: str, runs: Path) -> Path:
    from etude.tuning.adapters.saved_parts import CONFIG
    from etude.tuning.runs.folder import find_run

    return Path(run) if (Path(run) / CONFIG).is_file() else find_run(run, runs).adapter
