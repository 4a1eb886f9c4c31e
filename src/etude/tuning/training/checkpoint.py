"""Checkpoints: what a run needs to go on as if it had never stopped.

A checkpoint is one file, `checkpoints/step-000120.pt`: the trained weights, the optimiser's
moments and a few counters. Nothing else is needed, because everything random is a pure function
of (seed, step): the order of the data, and the dropout of a step. It is written beside its final
name, flushed to the disk and renamed, so that at any moment every file with a final name is
whole; the newest one before it is removed only after that.
"""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import torch

from etude.errors import RunError

_NAME = re.compile(r"step-(\d{6,})\.pt")


@dataclass
class Progress:
    """Counters of a run, all of them at the end of optimiser step `step`."""

    step: int = 0
    """Optimiser steps done."""
    total_steps: int = 0
    """Optimiser steps planned; the schedule's length."""
    planned: bool = False
    """Whether `total_steps` is final (it may be shortened once, by the time limit)."""
    tokens: int = 0
    """Tokens that went through the model in training."""
    trained_tokens: int = 0
    """Tokens whose prediction was trained."""
    seconds: float = 0.0
    """Time spent in optimiser steps, evaluation left out."""
    best_loss: float = float("inf")
    """Lowest evaluation loss so far."""
    best_step: int = 0
    """Step of `best_loss`."""
    bad_evaluations: int = 0
    """Evaluations since `best_loss`."""


@dataclass
class Checkpoint:
    """A state of training: weights, optimiser, counters, and the data they belong to."""

    weights: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    progress: Progress
    data: str
    """Fingerprint of the encoded training data: another order of rows is another run."""
    extra: dict[str, Any] = field(default_factory=dict[str, Any])


def _write(path: Path, content: dict[str, Any]) -> None:
    """Write atomically: after a crash or a full disk the old file is whole or the new one is."""
    temporary = path.with_suffix(".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        # torch's zip writer reports a full disk as a RuntimeError.
        temporary.unlink(missing_ok=True)
        raise RunError(
            f"cannot save {path.name} in {path.parent}: {_reason(error)}; "
            "the previous checkpoint is untouched. Free some space and resume"
        ) from None


def _reason(error: Exception) -> str:
    cause = error.__context__ if isinstance(error, RuntimeError) else error
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return str(error).splitlines()[0]


def save_checkpoint(folder: Path, checkpoint: Checkpoint, *, keep: int = 2) -> Path:
    """Write `step-NNNNNN.pt` and remove all but the newest `keep` of the others.

    Raises:
        RunError: the file cannot be written; what was there before is still valid.
    """
    path = folder / f"step-{checkpoint.progress.step:06d}.pt"
    _write(path, {**vars(checkpoint), "progress": asdict(checkpoint.progress)})
    for old in list_checkpoints(folder)[:-keep]:
        old.unlink(missing_ok=True)
    return path


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the numbered checkpoints of a folder, oldest first."""
    found = [path for path in folder.glob("step-*.pt") if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.stem.removeprefix("step-")))


def read_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint; tensors are on the CPU.

    Raises:
        RunError: the file is damaged or was not written by Etude.
    """
    try:
        content = cast("dict[str, Any]", torch.load(path, map_location="cpu", weights_only=True))
        return Checkpoint(**{**content, "progress": Progress(**content["progress"])})
    except FileNotFoundError:
        raise RunError(f"no checkpoint at {path}") from None
    except Exception as error:
        # A damaged archive fails in the zip reader, the unpickler or the constructor above,
        # each with exceptions of its own.
        raise RunError(f"{path} is no whole checkpoint ({type(error).__name__})") from None


def last_checkpoint(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest whole checkpoint, or None, and a line for each damaged one passed over."""
    passed: list[str] = []
    for path in reversed(list_checkpoints(folder)):
        try:
            return read_checkpoint(path), passed
        except RunError as error:
            passed.append(f"{error}; going back to the one before it")
    return None, passed
