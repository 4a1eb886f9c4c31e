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
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers.utils.logging import disable_progress_bar

from etude.core.atomic_files import disk_reason, is_disk_full
from etude.core.errors import DivergedError, EtudeError, ModelError, RunError, innermost_reason
from etude.core.machine import release_freed_memory, this_machine
from etude.core.progress import Progress, SilentProgress
from etude.core.runtimes import bound_products
from etude.tuning.adapters import registry
from etude.tuning.adapters.fake_quant import round_factors
from etude.tuning.adapters.inject import add_adapter
from etude.tuning.adapters.multi_adapter import AdaptedModule, adapter_parameters, adapters_named
from etude.tuning.adapters.save import save_adapter
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
from etude.tuning.runs.folder import RunFolder, remove_run
from etude.tuning.tasks.base import TaskRecord
from etude.tuning.tasks.registry import task_named
from etude.tuning.training.checkpoint import last_checkpoint, remove_torn
from etude.tuning.training.interrupt import StopAnswer, answers
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
    callbacks: Sequence[Callback] = (),
    progress: Progress | None = None,
    ignore_memory: bool = False,
) -> Run:
    """Fine-tune a model as `recipe` says.

    Args:
        recipe: the recipe; `Recipe.read(path)` reads one.
        base: directory in which the run's folder is created.
        resume: a stopped or killed run to resume; `recipe` must be its own.
        callbacks: called at each stage of training, and with every message for the user.
        progress: reports every stage that may take more than two seconds.
        ignore_memory: start even if the memory estimate says that the run cannot fit.

    Returns:
        The run, finished or (after Ctrl-C or SIGTERM) stopped.

    Raises:
        EtudeError: the recipe, the model, the data or the machine is unsuitable; what the run
            saved before is still valid. A run that has not trained a step leaves no folder.
    """
    recipe.require_data()
    bound_products()
    watching, progress = CallbackList(callbacks), progress or SilentProgress()
    placement = Placement.of(recipe)
    if placement.world_size > 1:
        raise RunError(
            f"this is process {placement.rank} of {placement.world_size} (WORLD_SIZE), but a run "
            "uses a single process; start it without a multi-process launcher"
        )
    with (
        resume or RunFolder.create(recipe.name, base) as folder,
        answers(watching.on_message) as answer,
    ):
        answer.will = _before_training(resume)
        try:
            folder.set_state("running")
            folder.write_text("recipe.yaml", recipe.to_yaml())
            kept = {**environment(), "placement": placement.as_json()}
            folder.write_json("environment.json", kept)
            return _tune(recipe, placement, folder, watching, progress, answer, ignore_memory)
        except BaseException as error:
            _note_failure(folder, error, new=resume is None)
            if isinstance(error, OSError) and error.errno not in (None, errno.EPIPE):
                raise RunError(_disk_error(error, folder)) from error
            raise


def _before_training(resume: RunFolder | None) -> Callable[[], str]:
    """Return what a stop does before the first step of this process."""
    if resume is None:
        return lambda: "nothing is trained yet, so nothing is kept"
    return lambda: f"{resume.path} stays as it was saved, to be resumed"


def _note_failure(folder: RunFolder, error: BaseException, *, new: bool) -> None:
    """Record why a run ended; a new one that has not trained a step leaves nothing behind."""
    if new and not folder.has_steps():
        with suppress(RunError):
            remove_run(folder)
        return
    # A full disk may refuse the record as well; the error itself is what the user must see.
    with suppress(RunError):
        if isinstance(error, DivergedError):
            folder.set_state("diverged", str(error))
            write_report(folder)
        elif isinstance(error, KeyboardInterrupt):
            folder.set_state("stopped", "interrupted outside of training")
        elif isinstance(error, EtudeError):
            folder.set_state("failed", str(error))
        else:
            folder.set_state("failed", f"{type(error).__name__}: {innermost_reason(error)}")


def _disk_error(error: OSError, folder: RunFolder) -> str:
    where = f" {error.filename}" if error.filename else ""
    kept = (
        f"the checkpoints in {folder.path} are intact: free some space and resume"
        if is_disk_full(error) and folder.path.exists()
        else "nothing was trained yet"
        if not folder.path.exists()
        else f"the checkpoints in {folder.path} are intact"
    )
    return f"cannot read or write{where}: {disk_reason(error)}; {kept}"


def _tune(
    recipe: Recipe,
    placement: Placement,
    folder: RunFolder,
    callbacks: CallbackList,
    progress: Progress,
    answer: StopAnswer,
    ignore_memory: bool,
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
        answer=answer,
        began=began,
    )
    beginning = WeightsBefore(trainer)
    if recipe.adapter.kind != "full":
        beginning.keep()
    _resume(trainer, folder, callbacks)
    release_freed_memory()
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
        save(loaded, recipe, folder)
        with placement.autocast_context():
            return measure()

    ended = after = save_and_measure()
    beside_loss = task.metrics(objective)
    restored = is_far_worse(before, ended, beside_loss) and beginning.restore()
    if restored:
        after = save_and_measure()
    beginning.forget()
    complaint = verdict(before, ended, recipe, beside_loss, restored=restored)
    folder.write_lines("samples.jsonl", task.sample_records(data, before, after))
    metrics = [loss_metric(objective.unit), *beside_loss]
    summary = {
        **figures(before, after, outcome, metrics),
        **sizes(loaded, folder, adapted, parameters),
        **state,
        "peak_rss": _recorded_peak(folder, "rss", trainer.peak_rss),
        "peak_gpu_memory": _recorded_peak(folder, "peak_gpu_memory", placement.peak_memory()),
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


def _resume(trainer: Trainer, folder: RunFolder, callbacks: Callback) -> None:
    remove_torn(folder.checkpoints)
    checkpoint, passed = last_checkpoint(folder.checkpoints)
    for line in passed:
        callbacks.on_message(line)
    if checkpoint is None:
        folder.truncate_metrics(-1)
        return
    trainer.resume(checkpoint)
    callbacks.on_resume(folder.read_metrics())
    callbacks.on_message(f"resuming after step {checkpoint.counters.step}")


def _recorded_peak(folder: RunFolder, key: str, known: int | None) -> int | None:
    """Return the largest value that any step recorded, in any process of the run, or `known`.

    The system counts a process's resident memory lazily, so its peak may be some pages below what
    it said at a step; and a report's peak must not lie below its own chart.
    """
    recorded = [record.get(key) for record in folder.read_metrics()]
    return max((value for value in [known, *recorded] if value is not None), default=None)


def _measured_before(folder: RunFolder) -> Measurement | None:
    kept = folder.read_json("before.json")
    return Measurement.from_json(kept) if kept else None
