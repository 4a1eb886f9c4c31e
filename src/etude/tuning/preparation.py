"""From a recipe to a model, data and an objective that optimiser steps can be taken with.

These are the stages of a run before anything is measured or trained. `pipeline.tune` goes on with
them, and so does the learning-rate range test.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from etude.core.errors import ModelError, RunError
from etude.core.progress import Progress
from etude.tuning.adapters.inject import add_adapter
from etude.tuning.adapters.multi_adapter import AdaptedModule, adapted_layers, adapter_parameters
from etude.tuning.adapters.stacked import StackedLinear
from etude.tuning.adapters.start_from import start_from
from etude.tuning.artifacts import PreparedData, describe_data
from etude.tuning.callbacks import Callback
from etude.tuning.config.recipe import Recipe
from etude.tuning.data.batch import Layout
from etude.tuning.distillation import distilled
from etude.tuning.fusion.forward_probe import called_targets
from etude.tuning.memory.estimate import MemoryEstimate
from etude.tuning.memory.fit import estimate_recipe, memory_at_hand, require_fit
from etude.tuning.memory.model_configs import ModelOutline, config_of
from etude.tuning.models.added_tokens import begin_rows, matrices
from etude.tuning.models.heads import Head, head_modules
from etude.tuning.models.load import LoadedModel, ModelFiles, load_model
from etude.tuning.models.unquantized import UnquantizedWeights
from etude.tuning.objectives.base import Objective
from etude.tuning.optim.schedules import require_schedule_fits
from etude.tuning.placement import Placement, use_threads
from etude.tuning.resumption import require_same_base
from etude.tuning.runs.folder import RunFolder
from etude.tuning.tasks.base import Task, TaskRecord
from etude.tuning.tasks.registry import task_named
from etude.tuning.training.step import planned_steps


@dataclass(frozen=True)
class Prepared:
    """What a run trains, and what with."""

    task: Task
    loaded: LoadedModel
    data: PreparedData
    adapted: list[AdaptedModule]
    """The adapted modules; none in full fine-tuning."""
    parameters: dict[str, torch.nn.Parameter]
    """The trained weights by name; projections of hidden states (`objective.hidden_weight`) are
    among them, and in no saved adapter or model."""
    layout: Layout
    objective: Objective
    head: Head
    estimate: MemoryEstimate | None
    """Of the peak memory; None where that of a model cannot be estimated."""
    config: Any
    """The model's configuration."""


def prepare(
    recipe: Recipe,
    placement: Placement,
    folder: RunFolder,
    callbacks: Callback,
    progress: Progress,
    *,
    ignore_memory: bool,
) -> Prepared:
    """Estimate, read, load, encode and adapt.

    Args:
        recipe: settled: its task and columns are known.
        placement: device and dtypes.
        folder: takes data.json, base.json and what the objective stores.
        callbacks: told of what the user should know.
        progress: reports every stage.
        ignore_memory: go on even if the memory estimate says that the run cannot fit.

    Raises:
        EtudeError: the recipe, the model, the data or the machine is unsuitable.
    """
    task = task_named(recipe.task)
    with ModelFiles(recipe.model.id, recipe.model.keep_layers) as files:
        estimate = _estimated(
            recipe, placement, files, task.expected_head(recipe), callbacks, ignore_memory
        )
        use_threads(recipe.train.threads)
        placement.reset_peak_memory()

        progress.start("Reading the data", None)
        split = task.read(recipe)
        progress.finish()
        head = task.head(split, recipe)
        loaded = load_model(
            recipe.model, recipe.quant, progress, head, placement=placement, files=files
        )
        require_same_base(folder, loaded, recipe)
        if placement.warning is not None:
            callbacks.on_message(placement.warning)
        for note in loaded.added.notes:
            callbacks.on_message(note)
        data = task.encode(split, loaded, recipe, progress)
        for note in data.notes:
            callbacks.on_message(note)
        require_schedule_fits(recipe.train, planned_steps(recipe.train, len(data.train.samples)))
        folder.write_json("data.json", describe_data(data, loaded.tokenizer))
        adapted, parameters = adapt(loaded, recipe, progress, callbacks.on_message)
        if note := stacked_experts(loaded.model):
            callbacks.on_message(note)
    with placement.autocast_context():
        layout = task.layout(recipe, loaded)
        if layout.unpacked_because is not None:
            callbacks.on_message(f"packing is off: {layout.unpacked_because}")
        objective = task.objective(recipe, loaded, data, folder, progress)
        if recipe.objective.kind == "distill":
            objective, projections = distilled(
                *(objective, recipe, loaded, folder, callbacks, progress),
                samples=data.train.samples,
                layout=layout,
            )
            parameters = {**parameters, **projections}
    return Prepared(
        task,
        loaded,
        data,
        adapted,
        parameters,
        layout,
        objective,
        head,
        estimate,
        files.config,
    )


def _estimated(
    recipe: Recipe,
    placement: Placement,
    files: ModelFiles,
    head: Head,
    callbacks: Callback,
    ignore_memory: bool,
) -> MemoryEstimate | None:
    """Predict the peak memory; None where that of a model cannot be estimated.

    Raises:
        InsufficientMemoryError: the run cannot fit, and is not to begin all the same.
    """
    try:
        outline = ModelOutline(config_of(recipe.model, files), head, files)
        estimate = estimate_recipe(recipe, outline)
    except ModelError as error:
        # What is wrong with the model itself, loading it will say; an estimate is not worth a run.
        callbacks.on_message(f"no memory estimate: {error}")
        return None
    if not ignore_memory:
        require_fit(estimate, recipe, memory_at_hand(placement, estimate), outline)
    return estimate


def stacked_experts(model: Any) -> str | None:
    """Return a line about frozen experts, which are no Linears; None if all are adapted."""
    adapted = {
        id(layer.base.weight)
        for layer in adapted_layers(model).values()
        if isinstance(layer.base, StackedLinear)
    }
    experts = [
        parameter
        for name, parameter in model.named_parameters()
        if parameter.dim() == 3
        and ".experts." in name
        and not parameter.requires_grad
        and id(parameter) not in adapted
    ]
    if not experts:
        return None
    share = sum(p.numel() for p in experts) / sum(p.numel() for p in model.parameters())
    return (
        f"experts are neither adapted nor quantised: {len(experts)} tensors of three dimensions, "
        f"{share:.0%} of what is held in floating point; adapter.target_parameters adapts them"
    )


def adapt(
    loaded: LoadedModel,
    recipe: Recipe,
    progress: Progress | None = None,
    on_message: Callable[[str], None] | None = None,
) -> tuple[list[AdaptedModule], dict[str, torch.nn.Parameter]]:
    """Make the recipe's weights trainable and freeze the rest; return modules and weights."""
    model = loaded.model
    if recipe.adapter.kind == "full":
        if loaded.added.ids:
            for end in matrices(model).values():
                begin_rows(cast("torch.Tensor", end.weight), loaded.added.ids)
        model.requires_grad_(True)
        return [], dict(model.named_parameters())
    spec = recipe.adapter
    if loaded.head.is_new:
        saved = list(dict.fromkeys([*spec.modules_to_save, *head_modules(model)]))
        spec = spec.model_copy(update={"modules_to_save": saved})
    targets, note = spec.target_modules, None
    if targets or not spec.target_parameters:
        targets, note = called_targets(model, spec.target_modules)
    spec = spec.model_copy(update={"target_modules": targets})
    if note is not None and on_message is not None:
        on_message(note)
    with UnquantizedWeights(loaded.files) as original:
        if spec.start_from is not None:
            _same_labels(loaded, Path(spec.start_from))
            adapted = start_from(
                model,
                spec,
                spec.start_from,
                loaded.origin,
                original=original,
                tokens=loaded.added.ids,
            )
        else:
            adapted = add_adapter(
                model,
                spec,
                seed=recipe.train.seed,
                original=original,
                progress=progress,
                tokens=loaded.added.ids,
            )
    return adapted, adapter_parameters(model)


def _same_labels(loaded: LoadedModel, adapter: Path) -> None:
    if not loaded.head.is_new:
        return
    labels = TaskRecord.read(adapter).labels
    if labels != loaded.head.labels:
        raise RunError(
            f"adapter.start_from: {adapter} has the classes {', '.join(labels) or 'none'}, the "
            f"data {', '.join(loaded.head.labels)}; a head of other classes cannot be gone on from"
        )
