"""What every task does alike: samples are held out, a file is read whole, rows fit the context."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from etude.core.errors import DataError
from etude.core.progress import Progress
from etude.tuning.config.recipe import Recipe
from etude.tuning.config.sections.data import DataSpec, FoldSpec
from etude.tuning.config.sections.named_files import NamedFile
from etude.tuning.data.schema import DataSplit
from etude.tuning.models.load import LoadedModel
from etude.tuning.objectives.base import Objective
from etude.tuning.tasks.base import PreparedData, Task
from etude.tuning.training.evaluate import Evaluation, evaluate


def require_held_out(split: DataSplit) -> None:
    """Refuse data of which nothing is held out.

    Raises:
        DataError: there are no evaluation samples.
    """
    if not split.eval:
        raise DataError(
            "there are no evaluation samples: name an evaluation file (data.eval), "
            "or hold out a share of the data (data.eval_fraction)"
        )


def whole_files(spec: DataSpec, files: Sequence[NamedFile], **changes: Any) -> DataSpec:
    """Return a specification that reads every row of `files`, with the columns of a run's data."""
    whole = {
        "kind": "files",
        "train": list(files),
        "eval": None,
        "eval_fraction": 0.0,
        "fold": FoldSpec(),
    }
    return spec.model_copy(update={**whole, "max_train": None, **changes})


def evaluate_held_out(
    task: Task,
    loaded: LoadedModel,
    data: PreparedData,
    recipe: Recipe,
    objective: Objective,
    progress: Progress,
) -> Evaluation:
    """Return the loss on the held-out samples, laid out as the task trains."""
    return evaluate(
        loaded.model,
        objective,
        data.eval.samples,
        recipe.train.micro_tokens,
        progress,
        layout=task.layout(recipe, loaded),
    )


def within_context(loaded: LoadedModel, spec: DataSpec) -> DataSpec:
    """Return the specification with samples no longer than the model's context."""
    context = getattr(loaded.model.config, "max_position_embeddings", None)
    if context is None or spec.max_length <= context:
        return spec
    return spec.model_copy(update={"max_length": context})


def context_notes(spec: DataSpec, longest: int) -> list[str]:
    """Return a line where samples may only be `longest` tokens long, fewer than the recipe says."""
    if longest == spec.max_length:
        return []
    return [f"data.max_length {spec.max_length} exceeds the model's context: using {longest}"]
