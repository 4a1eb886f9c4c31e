"""tune(recipe): the whole main job, from a base model to a tuned one, each stage named once.

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
from typing import Any, Protocol, cast

import torch

from etude.errors import DataError, DivergedError, EtudeError, RunError
from etude.tuning.adapters.files import save_adapter
from etude.tuning.adapters.lora import AdaptedModule, adapter_parameters, add_lora
from etude.tuning.data.encode import EncodedSet, Encoder
from etude.tuning.data.inspect import html_sample
from etude.tuning.data.samples import load_samples
from etude.tuning.data.schema import Sample
from etude.tuning.environment import environment
from etude.tuning.machine import peak_rss, this_machine
from etude.tuning.models.load import LoadedModel, load_model
from etude.tuning.progress import Progress, SilentProgress
from etude.tuning.recipe import ModelSpec, Recipe
from etude.tuning.report.memory_table import memory_table
from etude.tuning.report.page import write_report
from etude.tuning.runfolder import RunFolder
from etude.tuning.training.checkpoint import last_checkpoint, remove_torn
from etude.tuning.training.evaluate import evaluation_loss, generate_answers, rouge_l
from etude.tuning.training.loop import Trainer, TrainingSet


class RunView(Protocol):
    """Who is told how a run goes."""

    @property
    def progress(self) -> Progress:
        """Told of every stage that may take over two seconds."""
        ...

    def begin(self, total_steps: int, done: int = 0) -> None:
        """Training starts, or goes on after `done` steps."""
        ...

    def update(self, record: dict[str, Any]) -> None:
        """Show the record of an optimiser step."""
        ...

    def evaluation(self, record: dict[str, Any]) -> None:
        """Show the record of an evaluation."""
        ...

    def message(self, text: str) -> None:
        """Show a line."""
        ...

    def end(self) -> None:
        """Training is over."""
        ...


class Unwatched:
    """A `RunView` that shows nothing."""

    progress: Progress = SilentProgress()

    def begin(self, total_steps: int, done: int = 0) -> None:
        """Show nothing."""

    def update(self, record: dict[str, Any]) -> None:
        """Show nothing."""

    def evaluation(self, record: dict[str, Any]) -> None:
        """Show nothing."""

    def message(self, text: str) -> None:
        """Show nothing."""

    def end(self) -> None:
        """Show nothing."""


@dataclass(frozen=True)
class Run:
    """A run that ended: finished, or stopped and ready to be resumed."""

    folder: Path
    state: str
    """`finished` or `stopped`."""
    summary: dict[str, Any]
    """Figures of the run, as in summary.json; empty if it was stopped."""


@dataclass(frozen=True)
class Measurement:
    """What a model does on the held-out samples."""

    loss: float
    """Nats per trained token."""
    answers: list[str]
    """Greedy answers to the first `eval.generate` held-out samples."""
    rouge: list[float]
    """ROUGE-L of each answer, 0 to 100."""

    @property
    def mean_rouge(self) -> float | None:
        """Mean ROUGE-L, or None where nothing was generated."""
        return sum(self.rouge) / len(self.rouge) if self.rouge else None


@dataclass(frozen=True)
class PreparedData:
    """Encoded data, and what is needed to generate answers for the held-out part."""

    train: EncodedSet
    eval: EncodedSet
    encoder: Encoder
    notes: list[str]

    def questions(self, count: int) -> list[Sample]:
        """Return the first `count` held-out samples that ask for an answer."""
        return [sample for sample in self.eval.sources if sample.messages][:count]


def tune(
    recipe: Recipe,
    *,
    base: str | Path = "runs",
    resume: RunFolder | None = None,
    view: RunView | None = None,
) -> Run:
    """Fine-tune a model as `recipe` says.

    Args:
        recipe: what to do; `Recipe.read(path)` reads one.
        base: folder that the run's folder is made in.
        resume: a stopped or killed run to go on with; `recipe` must be its own.
        view: who is told how it goes.

    Returns:
        The run, finished or (after Ctrl-C or SIGTERM) stopped.

    Raises:
        EtudeError: something is wrong with the recipe, the model, the data or the machine, in
            one line; what the run had saved is still valid.
    """
    with resume or RunFolder.create(recipe.name, base) as folder:
        folder.set_state("running")
        folder.write_text("recipe.yaml", recipe.to_yaml())
        folder.write_json("environment.json", environment())
        try:
            return _tune(recipe, folder, view or Unwatched())
        except DivergedError as error:
            folder.set_state("diverged", str(error))
            raise
        except EtudeError as error:
            folder.set_state("failed", str(error))
            raise
        except KeyboardInterrupt:
            folder.set_state("stopped", "interrupted outside of training")
            raise


def _tune(recipe: Recipe, folder: RunFolder, view: RunView) -> Run:
    began = time.perf_counter()
    torch.set_num_threads(recipe.train.threads or this_machine().physical_cores)
    loaded = load_model(_model_spec(recipe), recipe.quant, view.progress)
    data = prepare(recipe, loaded.tokenizer, view.progress)
    for note in data.notes:
        view.message(note)
    folder.write_json("data.json", _describe_data(data, loaded.tokenizer))
    adapted, parameters = adapt(loaded.model, recipe)

    before = _measured_before(folder) or measure(loaded, data, recipe, view.progress)
    _keep_before(folder, before)
    trainer = Trainer(
        loaded.model,
        parameters,
        TrainingSet(data.train.samples, data.eval.samples),
        recipe,
        folder,
        view,
        autocast=_autocast(recipe, loaded),
    )
    _resume(trainer, folder, view)
    view.begin(trainer.counters.total_steps, trainer.counters.step)
    try:
        outcome = trainer.run()
    finally:
        view.end()
    if outcome.state == "stopped":
        folder.set_state("stopped", outcome.reason)
        return Run(folder.path, "stopped", {})

    view.message(f"training ended: {outcome.reason}")
    save(loaded, recipe, folder)
    after = measure(loaded, data, recipe, view.progress)
    _write_samples(folder, data, recipe, before, after)
    counters = outcome.counters
    trained = sum(p.numel() for p in parameters.values())
    total = parameter_count(loaded.model) + (trained if adapted else 0)
    summary = {
        "name": folder.name,
        "method": recipe.method,
        "model": loaded.origin.name,
        "eval_loss_before": before.loss,
        "eval_loss": after.loss,
        "rouge_before": before.mean_rouge,
        "rouge": after.mean_rouge,
        "trainable_parameters": trained,
        "total_parameters": total,
        "trainable_share": trained / total,
        "adapted_modules": [vars(module) for module in adapted],
        "steps": counters.step,
        "tokens": counters.tokens,
        "trained_tokens": counters.trained_tokens,
        "train_seconds": counters.seconds,
        "total_seconds": time.perf_counter() - began,
        "tokens_per_s": counters.tokens / counters.seconds,
        "peak_rss": peak_rss(),
        "saved_bytes": _size(folder.adapter if adapted else folder.path / "model"),
        "weight_bytes": weight_bytes(loaded.model),
        "memory_table": memory_table(
            loaded.model.config, recipe.adapter.rank, recipe.train.micro_tokens
        ),
        "ended": outcome.reason,
    }
    folder.write_json("summary.json", summary)
    folder.set_state("finished", outcome.reason)
    write_report(folder)
    return Run(folder.path, "finished", summary)


def prepare(recipe: Recipe, tokenizer: Any, progress: Progress) -> PreparedData:
    """Read, split and encode the recipe's data.

    Raises:
        DataError: nothing to train or to evaluate on, or a sample that cannot be trained.
    """
    progress.start("reading the data", None)
    split = load_samples(recipe.data, recipe.train.seed)
    progress.finish()
    if not split.eval:
        raise DataError(
            "there is nothing to evaluate on: name an evaluation file (data.eval), "
            "or hold a share out (data.eval_fraction)"
        )
    encoder = Encoder(tokenizer, recipe.data)
    progress.start("tokenising", None)
    train, held_out = encoder.encode_all(split.train), encoder.encode_all(split.eval)
    progress.finish()
    notes = list(split.notes)
    for name, encoded in (("training", train), ("evaluation", held_out)):
        notes += [f"{name}: left out, {why}: {left}" for why, left in encoded.stats.dropped.items()]
        if encoded.stats.cut.count:
            notes.append(f"{name}: prompts cut from the left: {encoded.stats.cut}")
        if recipe.model_fields_set and encoded.stats.longest > _context(tokenizer):
            raise DataError(
                f"{name}: the longest sample has {encoded.stats.longest} tokens, the model's "
                f"context {_context(tokenizer)}; lower data.max_length"
            )
    return PreparedData(train, held_out, encoder, notes)


def adapt(model: Any, recipe: Recipe) -> tuple[list[AdaptedModule], dict[str, torch.nn.Parameter]]:
    """Make the recipe's weights trainable and freeze the rest; return modules and weights."""
    if recipe.adapter.kind == "none":
        model.requires_grad_(True)
        return [], dict(model.named_parameters())
    adapted = add_lora(model, recipe.adapter, seed=recipe.train.seed)
    return adapted, adapter_parameters(model)


def measure(
    loaded: LoadedModel, data: PreparedData, recipe: Recipe, progress: Progress
) -> Measurement:
    """Measure loss and answers on the held-out samples."""
    spec = recipe.eval
    with torch.autocast("cpu", torch.bfloat16, enabled=_autocast(recipe, loaded) is not None):
        loss = evaluation_loss(loaded.model, data.eval.samples, recipe.train.micro_tokens, progress)
        questions = data.questions(spec.generate)
        answers = generate_answers(
            loaded.model,
            loaded.tokenizer,
            [data.encoder.prompt_ids(sample) for sample in questions],
            max_new_tokens=spec.max_new_tokens,
            batch_samples=spec.batch_samples,
            progress=progress,
        )
    references = [data.encoder.reference(sample) for sample in questions]
    return Measurement(loss, answers, rouge_l(references, answers))


def save(loaded: LoadedModel, recipe: Recipe, folder: RunFolder) -> None:
    """Write the adapter, or the whole model after full fine-tuning.

    Raises:
        RunError: it cannot be written.
    """
    if recipe.adapter.kind == "lora":
        save_adapter(loaded.model, folder.adapter, recipe.adapter, loaded.origin)
        return
    target = folder.path / "model"
    try:
        loaded.model.save_pretrained(target)
        loaded.tokenizer.save_pretrained(target)
    except OSError as error:
        raise RunError(
            f"cannot save the model in {target}: {error.strerror}; the last checkpoint is "
            "untouched. Free some space and resume"
        ) from None


def parameter_count(model: Any) -> int:
    """Return the base model's parameters, shared ones once, quantised ones as if they were not."""
    from etude.tuning.quant.linear import QuantLinear

    modules = [m for m in cast("torch.nn.Module", model).modules() if isinstance(m, QuantLinear)]
    quantised = sum(m.in_features * m.out_features for m in modules)
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    return quantised + (frozen or sum(p.numel() for p in model.parameters()))


def weight_bytes(model: Any) -> int:
    """Return the bytes that the model's weights and buffers take in memory, shared ones once."""
    tensors = {t.data_ptr(): t.nbytes for t in [*model.parameters(), *model.buffers()]}
    return sum(tensors.values())


def _model_spec(recipe: Recipe) -> ModelSpec:
    """Full fine-tuning keeps float32 weights: steps of 1e-4 vanish in bfloat16's 8 bits."""
    if recipe.adapter.kind == "none":
        return recipe.model.model_copy(update={"dtype": "float32"})
    return recipe.model


def _autocast(recipe: Recipe, loaded: LoadedModel) -> torch.dtype | None:
    """Return the dtype that float32 weights compute in, where that is another one."""
    wanted = recipe.model.dtype
    bfloat16 = wanted == "bfloat16" or (wanted == "auto" and this_machine().native_bfloat16)
    full = recipe.adapter.kind == "none" and loaded.dtype == torch.float32
    return torch.bfloat16 if full and bfloat16 else None


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


def _write_samples(
    folder: RunFolder,
    data: PreparedData,
    recipe: Recipe,
    before: Measurement,
    after: Measurement,
) -> None:
    folder.write_lines(
        "samples.jsonl",
        [
            {
                "origin": sample.origin,
                "prompt": sample.messages[-2].content if len(sample.messages) > 1 else "",
                "reference": data.encoder.reference(sample),
                "before": before.answers[i],
                "after": after.answers[i],
                "rouge_before": before.rouge[i],
                "rouge_after": after.rouge[i],
            }
            for i, sample in enumerate(data.questions(recipe.eval.generate))
        ],
    )


def _describe_data(data: PreparedData, tokenizer: Any) -> dict[str, Any]:
    """Return data.json: totals, the length histogram and a coloured sample."""
    stats = data.train.stats
    histogram = stats.histogram
    return {
        "totals": {
            "training samples": stats.samples,
            "evaluation samples": data.eval.stats.samples,
            "tokens": stats.tokens,
            "trained tokens": stats.trained_tokens,
            "longest sample": stats.longest,
            **{f"left out, {reason}": left.count for reason, left in stats.dropped.items()},
        },
        "length_histogram": {
            "edges": [histogram[0][0], *(last for _, last, _ in histogram)],
            "counts": [count for _, _, count in histogram],
        },
        "sample_html": html_sample(data.train.samples[0], tokenizer),
        "notes": data.notes,
    }


def _context(tokenizer: Any) -> int:
    return int(min(tokenizer.model_max_length, 2**31))


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
