"""The teacher of a run: which model, loaded how, and whether it fits the student."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from etude.core.errors import ModelError, RecipeError, RunError
from etude.core.progress import Progress
from etude.tuning.callbacks import Callback
from etude.tuning.config.recipe import Recipe
from etude.tuning.config.sections.model import ModelSpec
from etude.tuning.config.sections.objective import SELF
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.models.load import LoadedModel, load_model
from etude.tuning.objectives.base import SFT, Objective
from etude.tuning.objectives.classification import Classification
from etude.tuning.objectives.distillation import (
    DistilledClassifier,
    DistilledLanguageModel,
    OtherModel,
    OwnBase,
    Teacher,
)
from etude.tuning.objectives.divergence import Mixture
from etude.tuning.predictor import load
from etude.tuning.runs.folder import RunFolder

RECIPE = "recipe.yaml"
"""What makes a folder that of a run."""

TEACHER = "teacher.json"
"""File of a run that records which weights the teacher has."""


def distilled(
    objective: Objective,
    recipe: Recipe,
    student: LoadedModel,
    folder: RunFolder,
    callbacks: Callback,
    progress: Progress,
) -> Objective:
    """Return the objective that learns from the recipe's teacher.

    Args:
        objective: of the labels alone.
        recipe: of the run, its teacher found (`settle.with_runs_found`).
        student: the model that is trained, its adapter added.
        folder: of the run; records the teacher's fingerprint.
        callbacks: told how the teacher is held.
        progress: reports loading.

    Raises:
        RecipeError: the teacher is the student as it begins, or the data have no classes.
        ModelError: the teacher has other tokens or other classes.
        RunError: the run began with another teacher.
    """
    if not isinstance(objective, SFT | Classification):
        raise RecipeError(
            "objective.kind: distill is for answers and for one class a row; these data have "
            "several labels a row, or numbers"
        )
    spec = recipe.objective
    mixture = Mixture(spec.divergence, spec.teacher_temperature, spec.jsd_beta, spec.label_weight)
    teacher, held = _teacher(recipe, student, folder, progress)
    callbacks.on_message(f"teacher: {held}")
    if isinstance(objective, Classification):
        return DistilledClassifier(objective.classes, teacher, mixture, objective.baselines)
    return DistilledLanguageModel(teacher, mixture)


def _teacher(
    recipe: Recipe, student: LoadedModel, folder: RunFolder, progress: Progress
) -> tuple[Teacher, str]:
    """Return the teacher, and how it is held in words."""
    named = recipe.objective.teacher
    assert named is not None
    if named == SELF and recipe.quant.kind == "none":
        if recipe.adapter.kind == "full":
            # `--compare` and `--method full` come to it without a new look at the recipe.
            raise RecipeError(
                "objective.teacher: self is overwritten by full fine-tuning; name the model"
            )
        if recipe.objective.label_weight == 0 and recipe.adapter.factors.bits is None:
            raise RecipeError(
                "objective.teacher: self: the student begins as its teacher, so there is nothing "
                "to learn; quantise the base (quant.kind) or the factors (adapter.factors.bits), "
                "or raise objective.label_weight"
            )
        return OwnBase(), "the model itself with its adapter disabled, in the same memory"
    if named == SELF:
        loaded = load_model(
            recipe.model,
            QuantSpec(kind="none"),
            progress,
            student.head,
            placement=student.placement,
        )
        words = "the model itself, unquantised"
    else:
        loaded, words = _other(named, student, progress)
    _require_fit(loaded, student, named)
    _require_same(loaded, folder)
    loaded.model.requires_grad_(False)
    size = sum(p.nbytes for p in loaded.model.parameters())
    return OtherModel(loaded.model.eval()), f"{words}, a second model of {size / 1e6:,.0f} MB"


def _other(named: str, student: LoadedModel, progress: Progress) -> tuple[LoadedModel, str]:
    """Load a run, or a model by its name."""
    if (Path(named) / RECIPE).is_file():
        return load(Path(named), progress=progress).loaded, f"run {Path(named).name}"
    if student.head.is_new:
        raise RecipeError(
            f"objective.teacher: {named} is not a run, and only a run has the trained head that a "
            "teacher of classes needs; name a run"
        )
    dtype = str(student.model.dtype).removeprefix("torch.")
    spec = ModelSpec.model_validate({"id": named, "dtype": dtype})
    return load_model(spec, QuantSpec(kind="none"), progress, placement=student.placement), named


def _require_fit(teacher: LoadedModel, student: LoadedModel, named: str) -> None:
    """Refuse a teacher with other tokens or other classes.

    Matrices may differ in rows beyond the tokens: models pad them to round numbers.
    """
    ours, theirs = (_tokens(one.tokenizer) for one in (student, teacher))
    if ours != theirs:
        differ = len(ours.items() ^ theirs.items())
        raise ModelError(
            f"objective.teacher: {named} has {len(theirs):,} tokens and the student {len(ours):,}, "
            f"of which {differ:,} differ; a teacher needs the student's tokenizer"
        )
    if teacher.head.labels != student.head.labels:
        raise ModelError(
            f"objective.teacher: {named} has the classes "
            f"{', '.join(teacher.head.labels) or 'none'}, the student "
            f"{', '.join(student.head.labels) or 'none'}"
        )


def _tokens(tokenizer: Any) -> dict[str, int]:
    return dict(tokenizer.get_vocab())


def _require_same(teacher: LoadedModel, folder: RunFolder) -> None:
    """Record which weights the teacher has, or refuse to resume with others."""
    now = {"model": teacher.origin.name, "fingerprint": teacher.origin.fingerprint}
    before = folder.read_json(TEACHER)
    if before is None:
        folder.write_json(TEACHER, now)
    elif before.get("fingerprint") != now["fingerprint"]:
        raise RunError(
            f"{folder.path}: the teacher's weights ({before.get('model')}) differ from those that "
            "this run began with, so it cannot be resumed; restore them, or start a new run"
        )
