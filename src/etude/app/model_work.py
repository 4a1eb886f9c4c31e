"""Work on models that takes minutes, each in a process of its own: pulling and quantising.

The state of a model's work is in the folder `.work` of the models.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from etude.app.work import WorkError, WorkFolder, WorkState
from etude.core.errors import ModelError
from etude.core.paths import models_folder

if TYPE_CHECKING:
    from etude.app.work import Reporter, WorkRequest

KINDS = ("nf4", "fp4", "int8")
"""Formats that a model can be quantised to here."""


def work_folder() -> WorkFolder:
    """Return the work on models."""
    return WorkFolder(models_folder() / ".work")


def output_of(name: str, kind: str) -> Path:
    """Return the folder of a model that was quantised here."""
    stem = re.sub(r"[^\w.-]+", "-", name.removeprefix(str(models_folder())).strip("/"))
    return models_folder() / f"{stem}-{kind}"


def work_states() -> dict[str, WorkState]:
    """Return the last work on each model, by its name."""
    return work_folder().states()


def work_stamp() -> str:
    """Return a text that changes with the states, and with the folder of models."""
    return work_folder().stamp(models_folder())


def begin_work(action: Literal["pull", "quantize"], name: str, kind: str = "") -> None:
    """Start a process that pulls or quantises a model.

    Raises:
        ModelError: one is at work on it, or no process can be started.
    """
    try:
        work_folder().begin(action, name, kind)
    except WorkError as error:
        raise ModelError(str(error)) from error


def pull(request: WorkRequest, progress: Reporter) -> None:
    """Pull a model: in the process."""
    from etude.tuning.models.pull import pull

    pull(request.name, progress)


def quantize(request: WorkRequest, progress: Reporter) -> None:
    """Quantise a model: in the process."""
    from etude.tuning.config.sections.model import ModelSpec
    from etude.tuning.config.sections.quant import QuantSpec
    from etude.tuning.export.bitsandbytes import quantize_model

    quantize_model(
        ModelSpec.model_validate({"id": request.name}),
        QuantSpec.model_validate({"kind": request.kind}),
        output_of(request.name, request.kind),
        progress=progress,
    )
