"""This machine: its hardware, what can be fine-tuned on it, and how well the judge isolates."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from etude.core.progress import Progress, SilentProgress


def examine(*, measure: bool, progress: Progress | None = None) -> dict[str, Any]:
    """Return what is known of this machine, as plain data; sizes in bytes.

    Args:
        measure: measure the speed of arithmetic and start a sandbox, which takes a few seconds.
        progress: reports the stages.
    """
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
    progress = progress or SilentProgress()
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
    """Return the isolation that submissions get here, found out by starting a sandbox."""
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
