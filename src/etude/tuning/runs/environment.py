"""Environment of a run: versions and machine."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from typing import Any

from etude.core.machine import this_machine
from etude.core.version import __version__


def environment() -> dict[str, Any]:
    """Return what a reader needs to understand or repeat the run: versions and machine.

    No environment variables, no user or host names, no paths: a run's folder gets shared.
    """
    import torch

    from etude.tuning.kernels import native, triton

    machine, kernels = this_machine(), native.status()
    packages = ("torch", "transformers", "tokenizers", "safetensors", "numpy")
    return {
        "etude": __version__,
        "python": platform.python_version(),
        **{package: _version(package) for package in packages},
        "system": machine.system,
        "architecture": machine.architecture,
        "processor": machine.processor,
        "instruction_sets": list(machine.instruction_sets),
        "physical_cores": machine.physical_cores,
        "logical_cores": machine.logical_cores,
        "threads": torch.get_num_threads(),
        "kernels": kernels.reason if not kernels.ready else f"compiled by {kernels.reason}",
        "gpu_kernels": triton.status().reason,
        "memory_total": machine.memory_total,
        "memory_available": machine.memory_available,
        "git": _git_commit(),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """Return the commit of the repository that the run was started in, `+` for local changes."""

    def ask(*arguments: str) -> str | None:
        try:
            answer = subprocess.run(
                ["git", *arguments], capture_output=True, text=True, timeout=10, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return answer.stdout.strip()

    commit = ask("rev-parse", "HEAD")
    if commit is None:
        return None
    return commit + ("+" if ask("status", "--porcelain", "--untracked-files=no") else "")
