"""tune(recipe): the whole main job, from a base model to a tuned one, each stage named once.

Its stages, in order:

    load      the base, quantised tensor by tensor
    prepare   data to tokens, and which of them are trained
    adapt     adapters on the target modules, everything else frozen
    measure   loss and ROUGE-L before
    train     optimiser steps, checkpoints
    measure   the same after
    save      adapter, samples, figures, report
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers.utils.logging import disable_progress_bar

from etude.core.errors import DataError, DivergedError, EtudeError, ModelError, RunError
from etude.core.machine import release_freed_memory, this_machine
from etude.core.progress import Progress
from etude.tuning.adapters import registry
from etude.tuning.adapters.fake_quant import round_factors
from etude.tuning.adapters.inject import add_adapter
from etude.tuning.adapters.multi_adapter import AdaptedModule, adapter_parameters, adapters_named
from etude.tuning.adapters.save import save_adapter
from etude.tuning.artifacts import (
    Measurement,
    PreparedData,
    describe_data,
    figures,
    sample_records,
    sizes,
)
from etude.tuning.callbacks import RunView, Unwatched
from etude.tuning.config.recipe import Recipe
from etude.tuning.data.encode import Encoder
from etude.tuning.data.samples import load_samples
from etude.tuning.data.token_cache import encode_cached
from etude.tuning.memory.estimate import MemoryEstimate
from etude.tuning.memory.fit import estimate_recipe, require_fit
from etude.tuning.metrics.rouge import rouge_l
from etude.tuning.models.load import LoadedModel, load_model
from etude.tuning.models.sources import resolve
from etude.tuning.models.unquantized import UnquantizedWeights
from etude.tuning.objectives.base import SFT, Objective
from etude.tuning.objectives.reference import CachedReference, reference_log_probs
from etude.tuning.objectives.select import make_objective, reference_samples
from etude.tuning.optim.optimizers import optimizer_figures
from etude.tuning.placement import Placement
from etude.tuning.report.page import write_report
from etude.tuning.runs.environment import environment
from etude.tuning.runs.folder import RunFolder
from etude.tuning.training.checkpoint import last_checkpoint, remove_torn
from etude.tuning.training.evaluate import evaluate, generate_answers
from etude.tuning.training.trainer import AllocateRanks, Trainer, TrainingSet

REFERENCE = "reference.json"
"""In a run's folder: what the base gave the answers, where training overwrites the base."""


@dataclass(frozen=True)
class Run:
    """A run that ended: finished, or stopped and ready to be resumed."""

    folder: Path
    state: str
    """`finished` or `stopped`."""
    summary: dict[str, Any]
    """Figures of the run, as in summary.json; empty if it was stopped."""


def tune(
    recipe: Recipe,
    *,
    base: str | Path = "runs",
    resume: RunFolder | None = None,
    view: RunView | None = None,
    anyway: bool = False,
) -> Run:
    """Fine-tune a model as `recipe` says.

    Args:
        recipe: what to do; `Recipe.read(path)` reads one.
        base: folder that the run's folder is made in.
        resume: a stopped or killed run to go on with; `recipe` must be its own.
        view: who is told how it goes.
        anyway: begin even if the memory plan says that the run cannot fit.

    Returns:
        The run, finished or (after Ctrl-C or SIGTERM) stopped.

    Raises:
        EtudeError: something is wrong with the recipe, the model, the data or the machine, in
            one line; what the run had saved is still valid.
    """
    recipe.require_data()
    placement = Placement.of(recipe)
    if placement.world_size > 1:
        raise RunError(
            f"this is process {placement.rank} of {placement.world_size} (WORLD_SIZE), and a run "
            "is trained by one process; start it without a launcher of several"
        )
    with resume or RunFolder.create(recipe.name, base) as folder:
        folder.set_state("running")
        folder.write_text("recipe.yaml", recipe.to_yaml())
        folder.write_json("environment.json", {**environment(), "placement": placement.as_json()})
        try:
            return _tune(recipe, placement, folder, view or Unwatched(), anyway=anyway)
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
    recipe: Recipe, placement: Placement, folder: RunFolder, view: RunView, *, anyway: bool
) -> Run:
    began = time.perf_counter()
    plan = _planned(recipe, placement, view, anyway=anyway)
    torch.set_num_threads(recipe.train.threads or this_machine().physical_cores)
    placement.reset_peak_memory()
    loaded = load_model(recipe.model, recipe.quant, view.progress, placement=placement)
    if placement.warning is not None:
        view.message(placement.warning)
    data = prepare(recipe, loaded, view.progress)
    for note in data.notes:
        view.message(note)
    folder.write_json("data.json", describe_data(data, loaded.tokenizer))
    adapted, parameters = adapt(loaded, recipe, view.progress)

    objective = _objective(recipe, loaded, data, folder, view.progress)

    before = _measured_before(folder) or measure(loaded, data, recipe, view.progress, objective)
    _keep_before(folder, before)
    trainer = Trainer(
        loaded.model,
        parameters,
        TrainingSet(data.train.samples, data.eval.samples),
        recipe,
        folder,
        view,
        placement=placement,
        allocator=_allocator(loaded.model, recipe),
        objective=objective,
    )
    _resume(trainer, folder, view)
    release_freed_memory()
    view.begin(trainer.counters.total_steps, trainer.counters.step)
    try:
        outcome = trainer.run()
    finally:
        view.end()
    if outcome.state == "stopped":
        folder.set_state("stopped", outcome.reason)
        write_report(folder)
        return Run(folder.path, "stopped", {})

    view.message(f"training ended: {outcome.reason}")
    if recipe.adapter.factors.bits is not None:
        round_factors(loaded.model, recipe.adapter.factors)
    save(loaded, recipe, folder)
    after = measure(loaded, data, recipe, view.progress, objective)
    folder.write_lines("samples.jsonl", sample_records(data, recipe, before, after))
    summary = {
        **figures(before, after, outcome),
        **sizes(loaded, recipe, folder, adapted, parameters),
        **optimizer_figures(trainer.optimizer),
        "peak_gpu_memory": placement.peak_memory(),
        "name": folder.name,
        "method": recipe.method,
        "objective": objective.name,
        "loss_unit": objective.unit,
        "memory_plan": plan and plan.as_json(),
        "model": loaded.origin.name,
        "total_seconds": time.perf_counter() - began,
    }
    folder.write_json("summary.json", summary)
    folder.set_state("finished", outcome.reason)
    write_report(folder)
    return Run(folder.path, "finished", summary)


def _planned(
    recipe: Recipe, placement: Placement, view: RunView, *, anyway: bool
) -> MemoryEstimate | None:
    """Predict the peak memory; None where a model cannot be planned for.

    Raises:
        MemoryPlanError: the run cannot fit, and it is not wanted anyway.
    """
    resolve(recipe.model.id)  # a name that no model has is one error, not a missing plan, too
    try:
        plan = estimate_recipe(recipe)
    except ModelError as error:
        # What is wrong with the model itself, loading it will say; a plan is not worth a run.
        view.message(f"no memory plan: {error}")
        return None
    if not anyway:
        require_fit(plan, recipe, placement.memory_available())
    return plan


def prepare(recipe: Recipe, loaded: LoadedModel, progress: Progress) -> PreparedData:
    """Read, split and encode the recipe's data; a sample may be as long as the context at most.

    Raises:
        DataError: nothing to train or to evaluate on, or a sample that cannot be trained.
    """
    progress.start("Reading the data", None)
    split = load_samples(recipe.data, recipe.train.seed)
    progress.finish()
    if not split.eval:
        raise DataError(
            "there is nothing to evaluate on: name an evaluation file (data.eval), "
            "or hold a share out (data.eval_fraction)"
        )
    notes = list(split.notes)
    spec = recipe.data
    context = getattr(loaded.model.config, "max_position_embeddings", None)
    if context is not None and spec.max_length > context:
        notes.append(f"data.max_length {spec.max_length} is cut to the model's context, {context}")
        spec = spec.model_copy(update={"max_length": context})
    encoder = Encoder(loaded.tokenizer, spec)
    progress.start("Tokenising", len(split.train) + len(split.eval), "samples")
    train = encode_cached(encoder, split.train, progress, notes.append)
    held_out = encoder.encode_all(split.eval, progress)
    progress.finish()
    for name, encoded in (("training", train), ("evaluation", held_out)):
        notes += [f"{name}: left out, {why}: {left}" for why, left in encoded.stats.dropped.items()]
        if encoded.stats.cut.count:
            notes.append(f"{name}: prompts cut from the left: {encoded.stats.cut}")
    return PreparedData(train, held_out, encoder, notes)


def adapt(
    loaded: LoadedModel, recipe: Recipe, progress: Progress | None = None
) -> tuple[list[AdaptedModule], dict[str, torch.nn.Parameter]]:
    """Make the recipe's weights trainable and freeze the rest; return modules and weights."""
    model = loaded.model
    if recipe.adapter.kind == "full":
        model.requires_grad_(True)
        return [], dict(model.named_parameters())
    with UnquantizedWeights(loaded.origin) as original:
        adapted = add_adapter(
            model, recipe.adapter, seed=recipe.train.seed, original=original, progress=progress
        )
    return adapted, adapter_parameters(model)


def _allocator(model: Any, recipe: Recipe) -> AllocateRanks | None:
    """Return what the adapter's kind does between steps, given the steps planned; or None."""
    if recipe.adapter.kind == "full":
        return None
    return registry.kind(recipe.adapter.kind).between_steps(adapters_named(model), recipe.adapter)


def measure(
    loaded: LoadedModel,
    data: PreparedData,
    recipe: Recipe,
    progress: Progress,
    objective: Objective | None = None,
) -> Measurement:
    """Measure loss and answers on the held-out samples.

    Args:
        loaded: the model, as it is.
        data: encoded.
        recipe: of the run.
        progress: told of both stages.
        objective: whose loss; None: the cross-entropy of the answers.
    """
    spec = recipe.eval
    objective = objective or SFT()
    with loaded.placement.autocast_context():
        evaluation = evaluate(
            loaded.model, objective, data.eval.samples, recipe.train.micro_tokens, progress
        )
        questions = data.questions(spec.generate)
        answers = generate_answers(
            loaded.model,
            loaded.tokenizer,
            [data.encoder.prompt_ids(sample) for sample in questions],
            data.encoder.end_id,
            max_new_tokens=spec.max_new_tokens,
            batch_samples=spec.batch_samples,
            progress=progress,
        )
    references = [data.encoder.reference(sample) for sample in questions]
    rouge = [
        100.0 * rouge_l(reference, answer).fmeasure
        for reference, answer in zip(references, answers, strict=True)
    ]
    return Measurement(evaluation.loss, answers, rouge, evaluation.metrics)


def _objective(
    recipe: Recipe, loaded: LoadedModel, data: PreparedData, folder: RunFolder, progress: Progress
) -> Objective:
    """Return what is minimised; what full fine-tuning will overwrite is measured first, and kept.

    Raises:
        DataError: the data cannot be learnt from by the recipe's objective.
    """
    train, held_out = data.train.samples, data.eval.samples
    seed = recipe.train.seed
    if recipe.adapter.kind != "full":
        return make_objective(recipe.objective, train, held_out, seed)
    known: dict[str, float] = folder.read_json(REFERENCE) or {}
    objective = make_objective(recipe.objective, train, held_out, seed, CachedReference(known))
    wanted = reference_samples(objective, [*train, *held_out])
    if wanted and not known:
        with loaded.placement.autocast_context():
            known = reference_log_probs(loaded.model, wanted, recipe.train.micro_tokens, progress)
        folder.write_json(REFERENCE, known)
        objective = make_objective(recipe.objective, train, held_out, seed, CachedReference(known))
    return objective


def save(loaded: LoadedModel, recipe: Recipe, folder: RunFolder) -> None:
    """Write the adapter, or the whole model after full fine-tuning.

    Raises:
        RunError: it cannot be written.
    """
    if recipe.adapter.kind != "full":
        save_adapter(loaded.model, folder.adapter, recipe.adapter, loaded.origin)
        return
    target = folder.path / "model"
    disable_progress_bar()  # transformers draws one of its own, on top of ours
    try:
        loaded.model.save_pretrained(target)
        loaded.tokenizer.save_pretrained(target)
    except OSError as error:
        raise RunError(
            f"cannot save the model in {target}: {error.strerror}; the last checkpoint is "
            "untouched. Free some space and resume"
        ) from None


def _resume(trainer: Trainer, folder: RunFolder, view: RunView) -> None:
    remove_torn(folder.checkpoints)
    checkpoint, passed = last_checkpoint(folder.checkpoints)
    for line in passed:
        view.message(line)
    if checkpoint is None:
        folder.truncate_metrics(-1)
        return
    trainer.resume(checkpoint)
    view.message(f"going on after step {checkpoint.counters.step}")


def _keep_before(folder: RunFolder, before: Measurement) -> None:
    folder.write_json("before.json", vars(before))


def _measured_before(folder: RunFolder) -> Measurement | None:
    kept = folder.read_json("before.json")
    return Measurement(**kept) if kept else None
