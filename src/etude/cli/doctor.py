"""`etude doctor`: report the hardware and what can be fine-tuned on it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from etude.cli.root import app

if TYPE_CHECKING:
    from etude.tuning.report.fits import Fit


@app.command(
    epilog="Examples:\n\n`etude doctor`\n\n`etude doctor --json | jq .fits`\n\n"
    "`taskset -c 0 etude doctor` reports for one core"
)
def doctor(
    measure: Annotated[
        bool, typer.Option(help="Measure the speed of arithmetic (about two seconds).")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Report this machine's hardware and what can be fine-tuned on it."""
    from etude.app.doctor import examine
    from etude.tuning.report.live import TerminalProgress

    facts = examine(measure=measure, progress=TerminalProgress(quiet=as_json))
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 1, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for label, sentences in _in_words(facts):
        table.add_row(label, "\n".join(sentences))
    Console(highlight=False, markup=False).print(table)


def _in_words(facts: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """Return each subject with its sentences."""
    from etude.core import units as q
    from etude.tuning.report.fits import Fit

    machine, threads = facts["machine"], facts["threads"]
    quota = machine["core_quota"]
    cores = f"{_count(machine['physical_cores'], 'core')} usable"
    if quota is not None:
        cores += f" (a control group allows {quota:g} cores' worth of time)"
    arithmetic = [f"{facts['dtype']}, because {facts['dtype_reason']}"]
    if facts["gflops"]:
        rates = ", ".join(f"{kind} {rate:,.0f}" for kind, rate in facts["gflops"].items())
        arithmetic.append(f"measured with {_count(threads, 'thread')}: {rates} GFLOP/s")
    by = facts["kernels"]["by"]
    arithmetic.append(
        f"kernels compiled for this processor by {by}"
        if facts["kernels"]["compiled"]
        else f"plain PyTorch, which takes half as long again and more: {by}"
    )
    memory = f"{q.size(machine['memory_available'])} available of {q.size(machine['memory_total'])}"
    if machine["memory_limited"]:
        memory += ", the limit of a control group"
    pulled = facts["pulled"]
    missing = [alias for alias in facts["pullable"] if alias not in pulled]
    models = [", ".join(pulled) if pulled else "none pulled yet"]
    if missing:
        models.append(f"to pull: {', '.join(missing)} (etude models pull NAME)")
    return [
        (
            "Processor",
            [
                f"{machine['processor']}, {machine['architecture']}; {cores}",
                "instruction sets that count: "
                + (", ".join(machine["instruction_sets"]) or "none of those known"),
            ],
        ),
        ("Threads", [f"{threads}: one a physical core; train.threads sets another number"]),
        ("Device", [f"model.device: auto is {facts['device']}: {facts['device_reason']}"]),
        ("Arithmetic", arithmetic),
        ("Memory", [memory]),
        (
            "What fits",
            [_fit_in_words(Fit(**fit)) for fit in facts["fits"]]
            + ["estimates with the recipe's defaults; tokens/s: at most, by arithmetic alone"],
        ),
        (
            "GPU",
            [
                f"{gpu['name']}, {q.size(gpu['memory_free'])} free of {q.size(gpu['memory'])}"
                for gpu in facts["gpus"]
            ]
            + [_gpu_kernels_in_words(facts["gpu_kernels"])] * bool(facts["gpus"])
            or ["none that torch can use"],
        ),
        (
            "Disk",
            [
                f"{q.size(facts['disk_free']['here'])} free here, for runs",
                f"{q.size(facts['disk_free']['models'])} free for models in "
                f"{facts['models_folder']}",
            ],
        ),
        *([("Judge", [facts["judge"]])] if facts["judge"] else []),
        ("Models", models),
        (
            "Versions",
            [", ".join(f"{name} {version}" for name, version in facts["versions"].items())],
        ),
    ]


def _gpu_kernels_in_words(kernels: dict[str, Any]) -> str:
    if kernels["compiled"]:
        return f"kernels compiled for it by {kernels['by']}"
    return f"plain PyTorch, which is slower: {kernels['by']}"


def _fit_in_words(fit: Fit) -> str:
    from etude.core import units as q

    method = q.METHODS[fit.method]
    if fit.model is None:
        return f"{method}: not even a model of 135 million parameters"
    speed = f", {q.number(fit.tokens_per_s)} tokens/s" if fit.tokens_per_s else ""
    return (
        f"{method}: up to about {q.short_number(fit.parameters)} parameters "
        f"(such as {fit.model}: {q.size(fit.memory)}{speed})"
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
