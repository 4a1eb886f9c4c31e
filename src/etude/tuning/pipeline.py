"""Fine-tuning pipeline: `tune(recipe)` takes a base model to a tuned one.

Its stages, in order:

    estimate  estimate the peak memory before anything is loaded
    read      turn rows into samples, as the recipe's task defines
    load      load the base, quantised tensor by tensor, with the task's head
    encode    turn samples into tokens and mark the trained ones
    adapt     add adapters to the target modules and freeze everything else
    measure   evaluate the loss and the task's metrics before training
    train     run optimiser steps and write checkpoints
    measure   evaluate again after training
    save      write adapter, head and labels, samples, summary and report
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers.utils.logging import disable_progress_bar

from etude.core.errors import DivergedError, EtudeError, ModelError, RunError
from etude.core.machine import release_freed_memory, this_machine
from etude.core.progress import Progress, SilentProgress
from etude.tuning.adapters import registry
from etude.tuning.adapters.fake_quant import round_factors
from etude.tuning.adapters.inject import add_adapter
from etude.tuning.adapters.multi_adapter import AdaptedModule, adapter_parameters, adapters_named
from etude.tuning.adapters.save import save_adapter
from etude.tuning.adapters.saved_parts import CONFIG, WEIGHTS
from etude.tuning.adapters.start_from import start_from
from etude.tuning.artifacts import Measurement, describe_data, figures, sizes
from etude.tuning.callbacks import Callback, CallbackList
from etude.tuning.config.recipe import Recipe
from etude.tuning.memory.estimate import MemoryEstimate
from etude.tuning.memory.fit import estimate_other_methods, estimate_recipe, require_fit
from etude.tuning.memory.model_configs import ModelOutline, config_of
from etude.tuning.metrics.metric import loss_metric
from etude.tuning.models.heads import Head, head_modules
from etude.tuning.models.load import LoadedModel, ModelFiles, load_model
from etude.tuning.models.unquantized import UnquantizedWeights
from etude.tuning.optim.optimizers import optimizer_figures
from etude.tuning.placement import Placement
from etude.tuning.report.page import write_report
from etude.tuning.runs.environment import environment
from etude.tuning.runs.folder import RunFolder, find_run
from etude.tuning.tasks.base import TaskRecord
from etude.tuning.tasks.registry import task_named
from etude.tuning.training.checkpoint import last_checkpoint, list_checkpoints, remove_torn
from etude.tuning.training.trainer import Trainer, TrainingSet


@dataclass(frozen=True)
class Run:
    """A finished run, or a stopped run that can be resumed."""

    folder: Path
    state: str
    """`finished` or `stopped`."""
    summary: dict[str, Any]
    """Contents of summary.json; empty if the run was stopped."""


def tune(
    recipe: Recipe,
    *,
    base: str | Path = "runs",
    resume: RunFolder | None = None,
    extend: bool = False,
    callbacks: Sequence[Callback] = (),
    progress: Progress | None = None,
    ignore_memory: bool = False,
) -> Run:
    """Fine-tune a model as `recipe` says.

    Args:
        recipe: the recipe; `Recipe.read(path)` reads one.
        base: directory in which the run's folder is created.
        resume: a stopped or killed run to resume; `recipe` must be its own.
        extend: whether the resumed run, finished or not, is to last as long as `recipe` says now:
            its steps are planned anew. The recipe may differ in the length of training only.
        callbacks: called at each stage of training, and with every message for the user.
        progress: reports every stage that may take more than two seconds.
        ignore_memory: start even if the memory estimate says that the run cannot fit.

    Returns:
        The run, finished or (after Ctrl-C or SIGTERM) stopped.

    Raises:
        EtudeError: the recipe, the model, the data or the machine is unsuitable; what the run
            saved before is still valid.
    """
    recipe.require_data()
    recipe = _with_adapter_found(recipe, base)
    watching, progress = CallbackList(callbacks), progress or SilentProgress()
    placement = Placement.of(recipe)
    if placement.world_size > 1:
        raise RunError(
            f"this is process {placement.rank} of {placement.world_size} (WORLD_SIZE), but a run "
            "uses a single process; start it without a multi-process launcher"
        )
    with resume or RunFolder.create(recipe.name, base) as folder:
        folder.set_state("running")
        folder.write_text("recipe.yaml", recipe.to_yaml())
        folder.write_json("environment.json", {**environment(), "placement": placement.as_json()})
        try:
            return _tune(
                recipe,
                placement,
                folder,
                watching,
                progress,
                ignore_memory=ignore_memory,
                extend=extend,
            )
        except DivergedError as error:
            folder.set_state("diverged", str(error))
            write_report(folder)
            raise
        except EtudeError as error:
            folder.set_state("failed", str(error))
            raise
        except KeyboardInterrupt:
            folder.set_state("stopped", "interrupted outside of training")
            raise


def _tune(
    recipe: Recipe,
    placement: Placement,
    folder: RunFolder,
    callbacks: CallbackList,
    progress: Progress,
    *,
    ignore_memory: bool,
    extend: bool,
) -> Run:
    began = time.perf_counter()
    task = task_named(recipe.task)
    with ModelFiles(recipe.model.id) as files:
        estimate = _estimated(
            recipe, placement, files, task.expected_head(recipe), callbacks, ignore_memory
        )
        torch.set_num_threads(recipe.train.threads or this_machine().physical_cores)
        placement.reset_peak_memory()

        progress.start("Reading the data", None)
        split = task.read(recipe)
        progress.finish()
        head = task.head(split, recipe)
        loaded = load_model(
            recipe.model, recipe.quant, progress, head, placement=placement, files=files
        )
        _same_base(folder, loaded, recipe)
        if placement.warning is not None:
            callbacks.on_message(placement.warning)
        data = task.encode(split, loaded, recipe, progress)
        for note in data.notes:
            callbacks.on_message(note)
        folder.write_json("data.json", describe_data(data, loaded.tokenizer))
        adapted, parameters = adapt(loaded, recipe, progress)

    with placement.autocast_context():
        objective = task.objective(recipe, loaded, data, folder, progress)

        def measure() -> Measurement:
            return task.measure(loaded, data, recipe, objective, progress)

        before = _measured_before(folder) or measure()
    folder.write_json("before.json", before.as_json())
    trainer = Trainer(
        loaded.model,
        parameters,
        TrainingSet(data.train.samples, data.eval.samples),
        recipe,
        folder,
        objective,
        layout=task.layout(recipe, loaded.tokenizer),
        placement=placement,
        callbacks=[*_between_steps(loaded.model, recipe), *callbacks.callbacks],
    )
    _resume(trainer, folder, callbacks, extend=extend)
    release_freed_memory()
    outcome = trainer.run()
    if outcome.state == "stopped":
        folder.set_state("stopped", outcome.reason)
        write_report(folder)
        return Run(folder.path, "stopped", {})

    callbacks.on_message(f"training ended: {outcome.reason}")
    if recipe.adapter.factors.bits is not None:
        round_factors(loaded.model, recipe.adapter.factors)
    save(loaded, recipe, folder)
    with placement.autocast_context():
        after = measure()
    folder.write_lines("samples.jsonl", task.sample_records(data, before, after))
    metrics = [loss_metric(objective.unit), *task.metrics(objective)]
    summary = {
        **figures(before, after, outcome, metrics),
        **sizes(loaded, folder, adapted, parameters),
        **optimizer_figures(trainer.optimizer),
        "peak_gpu_memory": placement.peak_memory(),
        "name": folder.name,
        "task": task.name,
        "sample_score": task.sample_score.as_json(),
        "method": recipe.method,
        "objective": objective.name,
        "loss_unit": objective.unit,
        "model": loaded.origin.name,
        "total_seconds": time.perf_counter() - began,
    }
    if estimate is not None:
        # Estimated last, when nobody waits for the run to begin.
        outline = ModelOutline(files.config, head)
        others = estimate_other_methods(recipe, outline)
        summary["memory_estimate"] = estimate.as_json()
        summary["other_memory_estimates"] = [other.as_json() for other in others]
    folder.write_json("summary.json", summary)
    folder.set_state("finished", outcome.reason)
    write_report(folder)
    return Run(folder.path, "finished", summary)


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
        outline = ModelOutline(config_of(recipe.model.id, files), head, files)
        estimate = estimate_recipe(recipe, outline)
    except ModelError as error:
        # What is wrong with the model itself, loading it will say; an estimate is not worth a run.
        callbacks.on_message(f"no memory estimate: {error}")
        return None
    if not ignore_memory:
        require_fit(estimate, recipe, placement.memory_available(), outline)
    return estimate


def adapt(
    loaded: LoadedModel, recipe: Recipe, progress: Progress | None = None
) -> tuple[list[AdaptedModule], dict[str, torch.nn.Parameter]]:
    """Make the recipe's weights trainable and freeze the rest; return modules and weights."""
    model = loaded.model
    if recipe.adapter.kind == "full":
        model.requires_grad_(True)
        return [], dict(model.named_parameters())
    spec = recipe.adapter
    if loaded.head.is_new:
        saved = list(dict.fromkeys([*spec.modules_to_save, *head_modules(model)]))
        spec = spec.model_copy(update={"modules_to_save": saved})
    with UnquantizedWeights(loaded.files) as original:
        if spec.start_from is not None:
            _same_labels(loaded, Path(spec.start_from))
            adapted = start_from(model, spec, spec.start_from, loaded.origin, original=original)
        else:
            adapted = add_adapter(
                model, spec, seed=recipe.train.seed, original=original, progress=progress
            )
    return adapted, adapter_parameters(model)


def _between_steps(model: Any, recipe: Recipe) -> list[Callback]:
    """Return the callbacks of the adapter's kind: AdaLoRA reallocates its ranks."""
    if recipe.adapter.kind == "full":
        return []
    kind = registry.kind(recipe.adapter.kind)
    return kind.callbacks(adapters_named(model), recipe.adapter)


def save(loaded: LoadedModel, recipe: Recipe, folder: RunFolder) -> None:
    """Write the adapter (the whole model after full fine-tuning) and the task record.

    Raises:
        RunError: the files cannot be written.
    """
    record = TaskRecord(recipe.task, loaded.head.labels)
    if recipe.adapter.kind != "full":
        save_adapter(loaded.model, folder.adapter, recipe.adapter, loaded.origin)
        record.write(folder.adapter)
        return
    target = folder.path / "model"
    disable_progress_bar()  # transformers would draw its own over ours
    try:
        loaded.model.save_pretrained(target)
        loaded.tokenizer.save_pretrained(target)
    except OSError as error:
        raise RunError(
            f"cannot save the model in {target}: {error.strerror}; the last checkpoint is "
            "intact. Free some space and resume"
        ) from None
    record.write(target)


def _with_adapter_found(recipe: Recipe, base: str | Path) -> Recipe:
    """Return the recipe with the folder of the adapter that it starts from.

    Before the run's own folder is made, since `latest` is to mean another run.
    """
    named = recipe.adapter.start_from
    if named is None or recipe.adapter.kind == "full" or (Path(named) / CONFIG).is_file():
        return recipe
    folder = find_run(named, base).adapter
    if not folder.is_dir():
        raise RunError(f"adapter.start_from: {folder.parent} has no adapter yet")
    spec = recipe.adapter.model_copy(update={"start_from": str(folder)})
    return recipe.model_copy(update={"adapter": spec})


def _same_base(folder: RunFolder, loaded: LoadedModel, recipe: Recipe) -> None:
    """Record which weights the run is of, or refuse to resume it with others.

    The fingerprint covers the architecture, every tensor's name, shape and format, and bytes from
    the beginning, middle and end of each: a model trained further, or rounded anew, differs in
    nearly all of them. A run of a version that recorded nothing is resumed unchecked.

    Raises:
        RunError: the weights differ from those that the run began with.
    """
    now: dict[str, str] = {"model": loaded.origin.name, "fingerprint": loaded.origin.fingerprint}
    if recipe.adapter.start_from is not None:
        weights = Path(recipe.adapter.start_from) / WEIGHTS
        if weights.is_file():
            now["start_from"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    before = folder.read_json("base.json")
    if before is None:
        if not list_checkpoints(folder.checkpoints):
            folder.write_json("base.json", now)
        return
    for key, what in (("fingerprint", "base's weights"), ("start_from", "adapter it starts from")):
        if before.get(key) != now.get(key):
            raise RunError(
                f"{folder.path}: the {what} ({before['model']}) differs from what this run began "
                "with, so it cannot be resumed; restore it, or start a new run"
            )


def _same_labels(loaded: LoadedModel, adapter: Path) -> None:
    if not loaded.head.is_new:
        return
    labels = TaskRecord.read(adapter).labels
    if labels != loaded.head.labels:
        raise RunError(
            f"adapter.start_from: {adapter} has the classes {', '.join(labels) or 'none'}, the "
            f"data {', '.join(loaded.head.labels)}; a head of other classes cannot be gone on from"
        )


def _resume(trainer: Trainer, folder: RunFolder, callbacks: Callback, *, extend: bool) -> None:
    remove_torn(folder.checkpoints)
    checkpoint, passed = last_checkpoint(folder.checkpoints)
    for line in passed:
        callbacks.on_message(line)
    if checkpoint is None:
        if extend:
            raise RunError(
                f"{folder.path} has no checkpoint left to go on from; start a new run with "
                "adapter.start_from"
            )
        folder.truncate_metrics(-1)
        return
    trainer.resume(checkpoint, replan=extend)
    counters = trainer.counters
    planned = f": {counters.total_steps} steps are planned now" if extend else ""
    callbacks.on_message(f"resuming after step {counters.step}{planned}")


def _measured_before(folder: RunFolder) -> Measurement | None:
    kept = folder.read_json("before.json")
    return Measurement.from_json(kept) if kept else None
