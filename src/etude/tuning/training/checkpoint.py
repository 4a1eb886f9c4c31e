"""Training checkpoints: everything needed to resume a run exactly.

A checkpoint is one file, `checkpoints/step-000120.pt`: the trained weights, the optimiser state and
a few counters. No random state is stored, because the order of the data and the dropout of each
step are pure functions of (seed, step). A file gets its final name only once it is complete and
flushed to disk; older checkpoints are removed only after that.
"""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import torch

from etude.core.atomic_files import disk_reason, replace_file
from etude.core.errors import RunError
from etude.tuning.optim.schedules import Plateau

_NAME = re.compile(r"step-(\d{6,})\.pt")


@dataclass
class Counters:
    """Counters of a run, taken at the end of optimiser step `step`."""

    step: int = 0
    """Optimiser steps done."""
    total_steps: int = 0
    """Optimiser steps planned; the schedule's length."""
    planned: bool = False
    """Whether `total_steps` is final (it may be shortened once, by the time limit)."""
    tokens: int = 0
    """Tokens processed in training."""
    trained_tokens: int = 0
    """Tokens that were targets of the loss."""
    seconds: float = 0.0
    """Time spent in optimiser steps, excluding evaluation."""
    best_value: float | None = None
    """Best evaluation so far by `eval.best_metric`; None before the first."""
    best_step: int = 0
    """Step of `best_value`."""
    bad_evaluations: int = 0
    """Evaluations since `best_value`."""
    total_seconds: float = 0.0
    """Time since the run began, loading and evaluation included, over all its processes."""
    peak_rss: int = 0
    """Peak resident memory of these processes, in bytes."""
    plateau: Plateau = field(default_factory=Plateau)
    """What `reduce_lr_on_plateau` remembers of the evaluations."""

    @classmethod
    def from_saved(cls, fields: dict[str, Any]) -> Counters:
        """Read a checkpoint's counters; version 0.1.0 stored the lowest loss as `best_loss`."""
        known = dict(fields)
        if "best_loss" in known:
            lowest = known.pop("best_loss")
            known["best_value"] = lowest if math.isfinite(lowest) else None
        # Checkpoints without the time of the whole run: training is the part that is known.
        known.setdefault("total_seconds", known.get("seconds", 0.0))
        plateau = Plateau(**known.pop("plateau", {}))
        return cls(**known, plateau=plateau)


@dataclass
class Checkpoint:
    """State of training: weights, optimiser, counters and a fingerprint of the data."""

    weights: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    counters: Counters
    data: str
    """Fingerprint of the encoded training data, including its order."""


def save_checkpoint(
    folder: Path,
    checkpoint: Checkpoint,
    *,
    keep: int = 2,
    written: Callable[[], None] | None = None,
) -> Path:
    """Write `step-NNNNNN.pt` and remove all but the newest `keep` of the others.

    Args:
        folder: directory of the checkpoints.
        checkpoint: the state to write.
        keep: maximum number of checkpoints in `folder`.
        written: called after each tensor is written; its memory may then be released.

    Raises:
        RunError: the file cannot be written; earlier checkpoints are still valid.
    """
    path = folder / f"step-{checkpoint.counters.step:06d}.pt"
    content = {**_on_cpu(vars(checkpoint)), "counters": asdict(checkpoint.counters)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(path, lambda aside: _save(content, aside, written))
    except OSError as error:
        raise RunError(
            f"cannot save {path}: {disk_reason(error)}; earlier checkpoints are intact. "
            "Free some space and resume"
        ) from None
    for old in list_checkpoints(folder)[:-keep]:
        old.unlink(missing_ok=True)
    return path


def _on_cpu(value: Any) -> Any:
    """Return nested data with its tensors moved to the CPU; CPU tensors are not copied.

    So a checkpoint can be read on a machine without a GPU, and reading it uses no GPU memory.
    """
    if isinstance(value, torch.Tensor):
        return value.cpu()
    if isinstance(value, dict):
        return {key: _on_cpu(one) for key, one in cast("dict[Any, Any]", value).items()}
    if isinstance(value, list):
        return [_on_cpu(one) for one in cast("list[Any]", value)]
    return value


@dataclass
class _Watched:
    """File wrapper that calls back after every write; torch writes once per tensor."""

    file: IO[bytes]
    written: Callable[[], None]

    def write(self, data: bytes | memoryview) -> int:
        count = self.file.write(data)
        self.written()
        return count

    def flush(self) -> None:
        self.file.flush()


def _save(content: dict[str, Any], path: Path, written: Callable[[], None] | None) -> None:
    """Write the file with torch.save; failures of the file system are raised as OSError."""
    try:
        with path.open("wb") as file:
            # torch.save only calls write and flush.
            whole: Any = _Watched(file, written) if written is not None else file
            torch.save(content, whole)
    except RuntimeError as error:
        # torch's zip writer hides a full disk behind an error of its own.
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise OSError(str(error).splitlines()[0]) from None


def remove_torn(folder: Path) -> None:
    """Remove partial files left by a killed process; the caller holds the run's lock."""
    for torn in folder.rglob(".step-*.pt.*"):
        torn.unlink(missing_ok=True)


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of a folder, oldest first."""
    found = [path for path in folder.glob("step-*.pt") if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.stem.removeprefix("step-")))


def read_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint; tensors are on the CPU.

    Raises:
        RunError: the file is damaged or was not written by Etude.
    """
    try:
        # torch.load does not check the archive's CRCs, so a flipped bit would go unnoticed.
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():
                raise ValueError(damaged)
        content = cast("dict[str, Any]", torch.load(path, map_location="cpu", weights_only=True))
        counters = Counters.from_saved(content.pop("counters"))
        return Checkpoint(counters=counters, **content)
    except FileNotFoundError:
        raise RunError(f"no checkpoint at {path}") from None
    except Exception as error:
        # A damaged archive fails in the zip reader, the unpickler or the constructor above,
        # each with exceptions of its own.
        raise RunError(f"{path} is not a valid checkpoint ({type(error).__name__})") from None


def last_checkpoint(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest valid checkpoint, or None, and a message for each damaged one."""
    passed: list[str] = []
    for path in reversed(list_checkpoints(folder)):
        try:
            return read_checkpoint(path), passed
        except RunError as error:
            passed.append(f"{error}; trying the previous one")
    return None, passed
