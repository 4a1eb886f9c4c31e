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

from transformers.utils.logging import disable_progress_bar

from etude.core.errors import RunError
from etude.core.machine import release_freed_memory
from etude.core.progress import Progress, SilentProgress
from etude.core.runtimes import bound_products
from etude.tuning.adapters import registry
from etude.tuning.adapters.fake_quant import round_factors
from etude.tuning.adapters.multi_adapter import adapters_named
from etude.tuning.adapters.save import save_adapter
from etude.tuning.artifacts import figures, sizes
from etude.tuning.callbacks import Callback, CallbackList
from etude.tuning.config.recipe import Recipe
from etude.tuning.failures import disk_error_message, note_failure
from etude.tuning.memory.fit import estimate_other_methods
from etude.tuning.memory.model_configs import ModelOutline
from etude.tuning.metrics.metric import loss_metric
from etude.tuning.metrics.sampling_error import standard_errors
from etude.tuning.models.load import LoadedModel
from etude.tuning.optim.optimizers import optimizer_figures
from etude.tuning.placement import Placement
from etude.tuning.preparation import prepare
from etude.tuning.report.page import write_report
from etude.tuning.resumption import (
    before_training,
    measured_before,
    recorded_peak,
    resume_last,
)
from etude.tuning.runs.environment import environment
from etude.tuning.runs.folder import RunFolder
from etude.tuning.runs.process import Heartbeat
from etude.tuning.settle import settled, with_runs_found
from etude.tuning.tasks.base import TaskRecord
from etude.tuning.tasks.detect import resolved
from etude.tuning.trackers.registry import require_trackers, trackers
from etude.tuning.training.gradient_noise import noise_scale
from etude.tuning.training.interrupt import StopAnswer, answers
from etude.tuning.training.measurement import Measurement, unchanged
from etude.tuning.training.optimization import optimization_facts
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
    require_trackers(recipe.train.trackers)
    bound_products()
    recipe = with_runs_found(recipe, base)
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
    callbacks = CallbackList([*trackers(recipe.train.trackers, folder), *callbacks.callbacks])
    if tests := recipe.data.test_files:
        names = " and ".join(file.first for file in tests)
        callbacks.on_message(f"data.test is not read: {names} waits for `etude eval RUN --final`")
    ready = prepare(recipe, placement, folder, callbacks, progress, ignore_memory=ignore_memory)
    task, loaded, data, objective = ready.task, ready.loaded, ready.data, ready.objective
    adapted, parameters = ready.adapted, ready.parameters
    with placement.autocast_context():

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
        layout=ready.layout,
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
    noise = noise_scale(folder.read_metrics(), recipe.train.batch_samples)
    if noise is not None:
        callbacks.on_message(noise.advice())
    optimization = optimization_facts(recipe, trainer, noise)
    # Answers are generated with decoded weights: what only training needs would be beside them.
    trainer.release()
    release_freed_memory()

    def save_and_measure() -> Measurement:
        if recipe.adapter.factors.bits is not None:
            round_factors(loaded.model, recipe.adapter.factors)
        save(loaded, recipe, folder, task.record(loaded, data.encoder, recipe))
        task.finish(_saved_in(recipe, folder), loaded, recipe)
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
        "optimization": optimization,
        **({} if noise is None else {"gradient_noise_scale": noise.as_json()}),
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
    if ready.estimate is not None:
        # Estimated last, when nobody waits for the run to begin.
        others = estimate_other_methods(recipe, ModelOutline(ready.config, ready.head))
        summary["memory_estimate"] = ready.estimate.as_json()
        summary["other_memory_estimates"] = [other.as_json() for other in others]
    folder.write_json("summary.json", summary)
    folder.set_state("finished", outcome.reason)
    write_report(folder)
    return Run(folder.path, "finished", summary)


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
        if loaded.added.ids:
            _save_tokenizer(loaded, target)
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


def _save_tokenizer(loaded: LoadedModel, folder: Path) -> None:
    """Write the tokenizer with the added tokens beside the adapter that has their rows."""
    try:
        loaded.tokenizer.save_pretrained(folder)
    except OSError as error:
        raise RunError(
            f"cannot save the tokenizer in {folder}: {error.strerror}; the last checkpoint is "
            "intact. Free some space and resume"
        ) from None


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
