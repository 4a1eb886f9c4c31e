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

import errno
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers.utils.logging import disable_progress_bar

from etude.core.errors import ModelError, RunError
from etude.core.machine import release_freed_memory
from etude.core.progress import Progress, SilentProgress
from etude.core.runtimes import bound_products
from etude.tuning.adapters import registry
from etude.tuning.adapters.fake_quant import round_factors
from etude.tuning.adapters.inject import add_adapter
from etude.tuning.adapters.multi_adapter import AdaptedModule, adapter_parameters, adapters_named
from etude.tuning.adapters.save import save_adapter
from etude.tuning.adapters.start_from import start_from
from etude.tuning.artifacts import describe_data, figures, sizes
from etude.tuning.callbacks import Callback, CallbackList
from etude.tuning.config.recipe import Recipe
from etude.tuning.failures import disk_error_message, note_failure
from etude.tuning.fusion.forward_probe import called_targets
from etude.tuning.memory.estimate import MemoryEstimate
from etude.tuning.memory.fit import estimate_other_methods, estimate_recipe, require_fit
from etude.tuning.memory.model_configs import ModelOutline, config_of
from etude.tuning.metrics.metric import loss_metric
from etude.tuning.metrics.sampling_error import standard_errors
from etude.tuning.models.heads import Head, head_modules
from etude.tuning.models.load import LoadedModel, ModelFiles, load_model
from etude.tuning.models.unquantized import UnquantizedWeights
from etude.tuning.optim.optimizers import optimizer_figures
from etude.tuning.placement import Placement, use_threads
from etude.tuning.report.page import write_report
from etude.tuning.resumption import (
    before_training,
    measured_before,
    recorded_peak,
    require_same_base,
    resume_last,
)
from etude.tuning.runs.environment import environment
from etude.tuning.runs.folder import RunFolder
from etude.tuning.runs.process import Heartbeat
from etude.tuning.settle import settled, with_adapter_found
from etude.tuning.tasks.base import TaskRecord
from etude.tuning.tasks.detect import resolved
from etude.tuning.tasks.registry import task_named
from etude.tuning.training.interrupt import StopAnswer, answers
from etude.tuning.training.measurement import Measurement, unchanged
from etude.tuning.training.rungs import Rungs
from etude.tuning.training.trainer import Trainer, TrainingSet
from etude.tuning.verdict import WeightsBefore, is_far_worse, verdict


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
    rungs: Rungs | None = None,
    before: Measurement | None = None,
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
        rungs: where the run is evaluated and pauses, to be compared with others; see `search`.
        before: what another run of the same base on the same data measured before training; None:
            measured.

    Returns:
        The run, finished or (after Ctrl-C or SIGTERM, or at a rung) stopped.

    Raises:
        EtudeError: the recipe, the model, the data or the machine is unsuitable; what the run
            saved before is still valid. A run that has not trained a step leaves no folder.
    """
    recipe.require_data()
    bound_products()
    recipe = with_adapter_found(recipe, base)
    watching, progress = CallbackList(callbacks), progress or SilentProgress()
    if resume is None:
        recipe = _decided(recipe, watching)
    placement = Placement.of(recipe)
    if placement.world_size > 1:
        raise RunError(
            f"this is process {placement.rank} of {placement.world_size} (WORLD_SIZE), but a run "
            "uses a single process; start it without a multi-process launcher"
        )
    with (
        resume or RunFolder.create(recipe.name, base) as folder,
        Heartbeat(folder.heartbeat),
        answers(_stopping(folder, watching)) as answer,
    ):
        answer.will = before_training(resume)
        try:
            folder.clear_stop()
            folder.set_state("starting")
            if resume is None:
                recipe = _decided(settled(recipe, folder.path), watching)
            folder.write_text("recipe.yaml", recipe.to_yaml())
            kept = {**environment(), "placement": placement.as_json()}
            folder.write_json("environment.json", kept)
            return _tune(
                recipe,
                placement,
                folder,
                watching,
                progress,
                answer,
                ignore_memory,
                extend,
                rungs,
                before,
            )
        except BaseException as error:
            note_failure(folder, error, new=resume is None)
            if isinstance(error, OSError) and error.errno not in (None, errno.EPIPE):
                raise RunError(disk_error_message(error, folder)) from error
            raise


def _decided(recipe: Recipe, callbacks: Callback) -> Recipe:
    """Return the recipe with its task and columns read from the data, and say which they are."""
    recipe, notes = resolved(recipe)
    for note in notes:
        callbacks.on_message(note)
    return recipe


def _stopping(folder: RunFolder, callbacks: Callback) -> Callable[[str], None]:
    """Return what answers a request to stop: the run's state, and a line for the user."""

    def say(text: str) -> None:
        folder.ask_to_stop()
        callbacks.on_message(text)

    return say


def _tune(
    recipe: Recipe,
    placement: Placement,
    folder: RunFolder,
    callbacks: CallbackList,
    progress: Progress,
    answer: StopAnswer,
    ignore_memory: bool,
    extend: bool,
    rungs: Rungs | None,
    known: Measurement | None,
) -> Run:
    began = time.perf_counter()
    task = task_named(recipe.task)
    with ModelFiles(recipe.model.id) as files:
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
        data = task.encode(split, loaded, recipe, progress)
        for note in data.notes:
            callbacks.on_message(note)
        folder.write_json("data.json", describe_data(data, loaded.tokenizer))
        adapted, parameters = adapt(loaded, recipe, progress, callbacks.on_message)
        if note := stacked_experts(loaded.model):
            callbacks.on_message(note)

    with placement.autocast_context():
        layout = task.layout(recipe, loaded)
        if layout.unpacked_because is not None:
            callbacks.on_message(f"packing is off: {layout.unpacked_because}")
        objective = task.objective(recipe, loaded, data, folder, progress)

        def measure() -> Measurement:
            return task.measure(loaded, data, recipe, objective, progress)

        before = measured_before(folder) or known or measure()
    folder.write_json("before.json", before.as_json())
    trainer = Trainer(
        loaded.model,
        parameters,
        TrainingSet(data.train.samples, data.eval.samples),
        recipe,
        folder,
        objective,
        layout=layout,
        placement=placement,
        callbacks=[*_between_steps(loaded.model, recipe), *callbacks.callbacks],
        answer=answer,
        began=began,
        rungs=rungs,
    )
    beginning = WeightsBefore(trainer)
    if recipe.adapter.kind != "full":
        beginning.keep()
    resume_last(trainer, folder, callbacks, extend=extend)
    release_freed_memory()
    folder.set_state("running")
    outcome = trainer.run()
    answer.will = lambda: (
        f"training is complete and saved; `etude tune --resume {folder.path}` goes on from here"
    )
    if outcome.state == "stopped":
        beginning.forget()
        folder.set_state("stopped", outcome.reason)
        write_report(folder)
        return Run(folder.path, "stopped", {})

    callbacks.on_message(f"training ended: {outcome.reason}")
    state = optimizer_figures(trainer.optimizer)
    # Answers are generated with decoded weights: what only training needs would be beside them.
    trainer.release()
    release_freed_memory()

    def save_and_measure() -> Measurement:
        if recipe.adapter.factors.bits is not None:
            round_factors(loaded.model, recipe.adapter.factors)
        save(loaded, recipe, folder, task.record(loaded, data.encoder, recipe))
        task.finish(folder.adapter if adapted else folder.path / "model", loaded, recipe)
        with placement.autocast_context():
            found = measure()
        if found.chosen:
            record = task.record(loaded, data.encoder, recipe)
            options = {**record.options, **found.chosen}
            replace(record, options=options).write(_saved_in(recipe, folder))
        return found

    ended = after = save_and_measure()
    beside_loss = task.metrics(objective)
    restored = is_far_worse(before, ended, beside_loss) and beginning.restore()
    if restored:
        after = save_and_measure()
    elif (note := unchanged(before, after)) is not None:
        callbacks.on_message(note)
    else:
        require_effect(before, after)
    beginning.forget()
    complaint = verdict(before, ended, recipe, beside_loss, restored=restored)
    folder.write_json("details.json", after.details)
    folder.write_lines("samples.jsonl", task.sample_records(data, before, after))
    metrics = [loss_metric(objective.unit), *beside_loss]
    beside: dict[str, Any] = after.details.get("baselines", {})
    summary = {
        **figures(before, after, outcome, metrics),
        "standard_errors": standard_errors(after.details, [metric.name for metric in metrics]),
        "baselines": {row["name"]: row["metrics"] for row in beside.get("rows", [])[:-1]},
        **sizes(loaded, folder, adapted, parameters),
        **state,
        "peak_rss": recorded_peak(folder, "rss", trainer.peak_rss),
        "peak_gpu_memory": recorded_peak(folder, "peak_gpu_memory", placement.peak_memory()),
        "name": folder.name,
        "task": task.name,
        "sample_score": task.sample_score.as_json(),
        "method": recipe.method,
        "objective": objective.name,
        "loss_unit": objective.unit,
        "model": loaded.origin.name,
        "total_seconds": trainer.total_seconds,
    }
    if complaint is not None:
        summary["verdict"] = complaint
        if restored:
            summary["eval_loss_ended"] = ended.loss
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


def stacked_experts(model: Any) -> str | None:
    """Return a line about frozen experts, which are no Linears; None if the model has none."""
    experts = [
        parameter
        for name, parameter in model.named_parameters()
        if parameter.dim() == 3 and ".experts." in name and not parameter.requires_grad
    ]
    if not experts:
        return None
    share = sum(p.numel() for p in experts) / sum(p.numel() for p in model.parameters())
    return (
        f"experts are neither adapted nor quantised: {len(experts)} tensors of three dimensions, "
        f"{share:.0%} of what is held in floating point"
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
        model.requires_grad_(True)
        return [], dict(model.named_parameters())
    spec = recipe.adapter
    if loaded.head.is_new:
        saved = list(dict.fromkeys([*spec.modules_to_save, *head_modules(model)]))
        spec = spec.model_copy(update={"modules_to_save": saved})
    targets, note = called_targets(model, spec.target_modules)
    spec = spec.model_copy(update={"target_modules": targets})
    if note is not None and on_message is not None:
        on_message(note)
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


def save(loaded: LoadedModel, recipe: Recipe, folder: RunFolder, record: TaskRecord) -> None:
    """Write the adapter (the whole model after full fine-tuning) and the task record.

    Raises:
        RunError: the files cannot be written.
    """
    target = _saved_in(recipe, folder)
    if recipe.adapter.kind != "full":
        save_adapter(loaded.model, target, recipe.adapter, loaded.origin)
        record.write(target)
        return
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


def require_effect(base: Measurement, tuned: Measurement) -> None:
    """Refuse a tuned model whose outputs are those of its base.

    Raises:
        RunError: they are equal to the last bit, so the adapter is not active.
    """
    if tuned.outputs_hash and tuned.outputs_hash == base.outputs_hash:
        raise RunError(
            "the outputs on the evaluation samples are equal to the last bit with and without the "
            "adapter, so it is not active or has learnt nothing; check adapter.target_modules and "
            "train.lr"
        )


def _saved_in(recipe: Recipe, folder: RunFolder) -> Path:
    return folder.path / "model" if recipe.adapter.kind == "full" else folder.adapter


def _same_labels(loaded: LoadedModel, adapter: Path) -> None:
    if not loaded.head.is_new:
        return
    labels = TaskRecord.read(adapter).labels
    if labels != loaded.head.labels:
        raise RunError(
            f"adapter.start_from: {adapter} has the classes {', '.join(labels) or 'none'}, the "
            f"data {', '.join(loaded.head.labels)}; a head of other classes cannot be gone on from"
        )
