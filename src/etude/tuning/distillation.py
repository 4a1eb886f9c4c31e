"""The teacher of a run: which model, loaded how, and whether it fits the student."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from etude.core.errors import ModelError, RecipeError, RunError
from etude.core.progress import Progress
from etude.tuning.adapters.saved_parts import WEIGHTS
from etude.tuning.callbacks import Callback
from etude.tuning.config.recipe import Recipe
from etude.tuning.config.sections.model import ModelSpec
from etude.tuning.config.sections.objective import SELF
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.data.batch import Layout
from etude.tuning.data.encoded import EncodedSample
from etude.tuning.models.load import LoadedModel, ModelFiles, load_model
from etude.tuning.objectives.base import SFT, Objective
from etude.tuning.objectives.classification import Classification
from etude.tuning.objectives.distillation import (
    AtHand,
    DistilledClassifier,
    DistilledLanguageModel,
    DistilledTagger,
    OtherModel,
    OwnBase,
    Read,
    StoredTeacher,
    Teacher,
    read_classes,
    read_tags,
    read_tokens,
)
from etude.tuning.objectives.divergence import Mixture
from etude.tuning.objectives.hidden_states import HiddenMatch, layer_map
from etude.tuning.objectives.token_classification import TokenClassification
from etude.tuning.predictor import load
from etude.tuning.runs.folder import RunFolder
from etude.tuning.teacher_scores import TeacherIdentity, in_words, stored_scores

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
    *,
    samples: Sequence[EncodedSample],
    layout: Layout,
) -> tuple[Objective, dict[str, nn.Parameter]]:
    """Return the objective that learns from the recipe's teacher, and what is trained for it alone.

    Args:
        objective: of the labels alone.
        recipe: of the run, its teacher found (`settle.with_runs_found`).
        student: the model that is trained, its adapter added.
        folder: of the run; records the teacher's fingerprint.
        callbacks: told how the teacher is held.
        progress: reports loading.
        samples: the training samples, of which scores may be stored.
        layout: of passes through the model.

    Raises:
        RecipeError: the teacher is the student as it begins, or the data have no classes.
        DataError: stored scores are of other data or of another teacher.
        ModelError: the teacher has other tokens or other classes.
        RunError: the run began with another teacher.
    """
    if not isinstance(objective, SFT | Classification | TokenClassification):
        raise RecipeError(
            "objective.kind: distill is for answers, for tags of words and for one class a row; "
            "these data have several labels a row, or numbers"
        )
    spec = recipe.objective
    mixture = Mixture(spec.divergence, spec.teacher_temperature, spec.jsd_beta, spec.label_weight)
    read: Read = read_tokens
    if isinstance(objective, Classification):
        read = read_classes
    elif isinstance(objective, TokenClassification):
        read = read_tags
    teacher: Teacher
    states = None
    if spec.teacher_scores is None:
        teacher, held = _teacher(recipe, student, folder, progress)
        if spec.hidden_weight > 0:
            states, said = _states(recipe, student, teacher)
            held = f"{held}; {said}"
    else:
        _refuse_nothing_to_learn(recipe)
        store = stored_scores(
            recipe,
            student,
            samples,
            layout,
            _identity(recipe, student),
            lambda: _teacher(recipe, student, folder, progress)[0],
            read,
            progress,
        )
        teacher, held = StoredTeacher(store), in_words(store)
    callbacks.on_message(f"teacher: {held}")
    projections = {} if states is None else states.projections
    if isinstance(objective, Classification):
        baselines = objective.baselines
        return (
            DistilledClassifier(objective.classes, teacher, mixture, baselines, states),
            projections,
        )
    if isinstance(objective, TokenClassification):
        return DistilledTagger(objective.decoder, teacher, mixture, states), projections
    return DistilledLanguageModel(teacher, mixture, states), projections


def _states(recipe: Recipe, student: LoadedModel, teacher: AtHand) -> tuple[HiddenMatch, str]:
    """Return the matching of hidden states, and its layer map in words."""
    models = student.model, teacher.model if isinstance(teacher, OtherModel) else student.model
    counts = [model.config.num_hidden_layers for model in models]
    pairs = layer_map(recipe.objective.hidden_layers, *counts)
    match = HiddenMatch(
        pairs,
        (models[0].config.hidden_size, models[1].config.hidden_size),
        recipe.objective.hidden_weight,
        recipe.train.seed,
        student.placement.device,
    )
    told = ", ".join(f"{s} to {t}" for s, t in pairs)
    return (
        match,
        f"states after so many layers of {counts[0]} matched with those of {counts[1]}: {told}",
    )


def _refuse_nothing_to_learn(recipe: Recipe) -> None:
    """Refuse a teacher that is the student as it begins, and one that training would overwrite."""
    spec = recipe.objective
    if spec.teacher != SELF or recipe.quant.kind != "none":
        return
    if recipe.adapter.kind == "full" and spec.teacher_scores is None:
        # `--compare` and `--method full` come to it without a new look at the recipe.
        raise RecipeError(
            "objective.teacher: self is overwritten by full fine-tuning; name the model"
        )
    if spec.label_weight == 0 and recipe.adapter.factors.bits is None:
        raise RecipeError(
            "objective.teacher: self: the student begins as its teacher, so there is nothing "
            "to learn; quantise the base (quant.kind) or the factors (adapter.factors.bits), "
            "or raise objective.label_weight"
        )


def _identity(recipe: Recipe, student: LoadedModel) -> TeacherIdentity:
    """Return which weights the recipe's teacher has, without loading them."""
    named = recipe.objective.teacher
    assert named is not None
    if named == SELF:
        return TeacherIdentity(student.origin.name, student.origin.fingerprint)
    if not (Path(named) / RECIPE).is_file():
        with ModelFiles(named) as files:
            return TeacherIdentity(named, files.origin.fingerprint if files.are_here else None)
    run = RunFolder.open(Path(named))
    if (run.path / "model").is_dir():
        with ModelFiles(str(run.path / "model")) as files:
            return TeacherIdentity(run.path.name, files.origin.fingerprint)
    kept: dict[str, Any] = run.read_json("base.json") or {}
    base = str(kept.get("fingerprint", ""))
    return TeacherIdentity(run.path.name, f"{base}+{_adapter_hash(run.path)}")


def _adapter_hash(run: Path) -> str | None:
    """Return the hash of a run's adapter; None where the teacher is no run, or has none."""
    file = run / "adapter" / WEIGHTS
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None


def _teacher(
    recipe: Recipe, student: LoadedModel, folder: RunFolder, progress: Progress
) -> tuple[AtHand, str]:
    """Return the teacher, and how it is held in words."""
    named = recipe.objective.teacher
    assert named is not None
    _refuse_nothing_to_learn(recipe)
    if named == SELF and recipe.quant.kind == "none":
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
    _require_same(loaded, _adapter_hash(Path(named)), folder)
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


def _require_same(teacher: LoadedModel, adapter: str | None, folder: RunFolder) -> None:
    """Record which weights the teacher has, or refuse to resume with others."""
    now = {
        "model": teacher.origin.name,
        "fingerprint": teacher.origin.fingerprint,
        "adapter": adapter,
    }
    before = folder.read_json(TEACHER)
    if before is None:
        folder.write_json(TEACHER, now)
    elif {**now, **before} != now:
        raise RunError(
            f"{folder.path}: the teacher's weights ({before.get('model')}) differ from those that "
            "this run began with, so it cannot be resumed; restore them, or start a new run"
        )
