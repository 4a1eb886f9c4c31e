"""`etude doctor`: report the hardware and what can be fine-tuned on it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from etude.cli.root import app

if TYPE_CHECKING:
    from etude.core.progress import Progress
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


def examine(*, measure: bool, progress: Progress) -> dict[str, Any]:
    """Return everything that `etude doctor` knows, as plain data; sizes in bytes."""
    import torch

    from etude.core.machine import disk_free, gpus, measure_gflops, this_machine
    from etude.core.paths import home
    from etude.tuning.config.sections.model import ModelSpec
    from etude.tuning.kernels import native, triton
    from etude.tuning.models.catalog import CATALOG
    from etude.tuning.placement import Placement, dtype_name, explain_device
    from etude.tuning.report.fits import what_fits
    from etude.tuning.runs.environment import environment

    machine = this_machine()
    torch.set_num_threads(machine.physical_cores)
    placement = Placement.of(ModelSpec())
    dtype = placement.dtype
    rates: dict[str, float] = {}
    if measure:
        rates = {
            dtype_name(kind): round(measure_gflops(kind), 1)
            for kind in (torch.float32, torch.bfloat16)
        }
    kernels, gpu_kernels = native.status(), triton.status()
    chosen, device = dtype_name(dtype), placement.device
    progress.start("Estimating what fits", None)
    fits = what_fits(
        placement.memory_available(),
        dtype,
        rates.get(chosen) if device.type == "cpu" else None,
    )
    progress.finish()
    return {
        "machine": {**asdict(machine), "native_bfloat16": machine.native_bfloat16},
        "threads": machine.physical_cores,
        "device": str(device),
        "device_reason": explain_device(device),
        "dtype": chosen,
        "dtype_reason": _why(device.type, chosen),
        "gflops": rates,
        "kernels": {"compiled": kernels.ready, "by": kernels.reason},
        "judge": _judge() if measure else None,
        "gpu_kernels": {"compiled": gpu_kernels.ready, "by": gpu_kernels.reason},
        "gpus": [asdict(gpu) for gpu in gpus()],
        "disk_free": {"here": disk_free(Path()), "models": disk_free(home())},
        "models_folder": str(home() / "models"),
        "fits": [asdict(fit) for fit in fits],
        "pulled": [alias for alias, model in CATALOG.items() if model.is_pulled()],
        "pullable": list(CATALOG),
        "versions": {
            key: value
            for key, value in environment().items()
            if key
            in ("etude", "python", "torch", "transformers", "tokenizers", "safetensors", "numpy")
        },
    }


def _judge() -> str:
    """Say how well submissions to `etude practice` are shut in here, found out by doing it."""
    from etude.core.errors import JudgeError
    from etude.practice.judge.pool import Pool

    try:
        with Pool(require=()) as pool:
            return pool.level.describe()
    except JudgeError as error:
        return str(error)


def _why(device: str, dtype: str) -> str:
    what = "processor" if device == "cpu" else "GPU"
    if dtype == "bfloat16":
        return f"the {what} multiplies bfloat16 itself"
    return f"the {what} would have to emulate bfloat16, which is slower"


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
