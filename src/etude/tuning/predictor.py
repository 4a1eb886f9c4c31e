"""Inference with a tuned model; base and tuned answers share one set of weights in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch

from etude.core.errors import AdapterError, RunError
from etude.core.progress import Progress
from etude.tuning.adapters.modules_to_save import saved_modules
from etude.tuning.adapters.multi_adapter import adapter_disabled
from etude.tuning.adapters.read import read_adapter, read_json
from etude.tuning.adapters.save import load_adapter
from etude.tuning.adapters.saved_parts import CONFIG
from etude.tuning.adapters.saved_tokens import refuse_other_numbers, with_tokens_of
from etude.tuning.config.recipe import Recipe
from etude.tuning.data.messages import read_message
from etude.tuning.data.schema import Message
from etude.tuning.generation.sampling import SeededSampling
from etude.tuning.models.foreign_code import foreign_code
from etude.tuning.models.heads import Head, head_modules
from etude.tuning.models.load import LoadedModel, load_model
from etude.tuning.models.unquantized import UnquantizedWeights
from etude.tuning.placement import use_threads
from etude.tuning.quant.linear import dense_weights
from etude.tuning.runs.folder import RunFolder, find_run
from etude.tuning.runs.trained_recipe import trained_recipe, with_system
from etude.tuning.tasks.base import RECORD, Prediction, TaskRecord
from etude.tuning.tasks.chat import as_trained
from etude.tuning.tasks.registry import task_named
from etude.tuning.training.evaluate import end_tokens


@dataclass(frozen=True)
class Predictor:
    """A model with its adapter (or after full fine-tuning), ready for inference.

    Chat template, system message and end token are those of training.
    """

    loaded: LoadedModel
    encoder: Any
    """The task's encoder."""
    adapted: bool
    """Whether there is an adapter that can be disabled to query the base."""
    recipe: Recipe
    """The run's recipe; for a base model, one with defaults."""

    def predict(
        self,
        inputs: Sequence[str | tuple[str, str | Sequence[str]] | Sequence[str]],
        *,
        tuned: bool = True,
    ) -> Sequence[Prediction]:
        """Return the prediction for each input: an answer, a class, labels, a number, entities.

        Args:
            inputs: prompts, texts or pairs of texts; for token classification also lists of words;
                for reranking also a query and a list of its documents.
            tuned: False uses the base.

        Raises:
            RunError: the base is requested, but full fine-tuning has overwritten it.
        """
        if isinstance(inputs, str):  # a sequence of its letters, else
            inputs = [inputs]
        with self._voice(tuned):
            task = task_named(self.recipe.task)
            return task.predict(self.loaded, self.encoder, inputs, self.recipe)

    def reply(
        self,
        prompt: str | Sequence[Message | Mapping[str, Any]],
        *,
        tuned: bool = True,
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
        streamer: Any = None,
    ) -> str:
        """Answer a prompt, or the last message of a conversation.

        Args:
            prompt: a user's message, or the messages so far: `{"role": ..., "content": ...}`, or
                `Message`.
            tuned: False uses the base.
            max_new_tokens: maximum length of an answer; longer ones are truncated.
            temperature: 0 for greedy decoding.
            top_p: the share of probability that is sampled from; 1 for all of it.
            seed: of the sampling; the same one gives the same answer. None: another one each time.
            streamer: a transformers streamer; receives each token.

        Raises:
            RunError: the model is not a language model, or the base is requested after full
                fine-tuning.
            DataError: a message is none, or the chat template refuses them.
        """
        if self.loaded.head.is_new:
            raise RunError(
                f"this run has task: {self.recipe.task}, which does not generate text; use predict"
            )
        turns = _turns(prompt)
        ids = self.encoder.prompt_ids(as_trained(turns, self.encoder.spec, "the conversation"))
        model: Any = self.loaded.model
        device = self.loaded.placement.device
        processors: list[Any] = []
        if temperature > 0:
            processors.append(SeededSampling(temperature, top_p, seed))
        with (
            torch.inference_mode(),
            dense_weights(model),
            self._voice(tuned),
            foreign_code(model),
        ):
            output = model.generate(
                input_ids=torch.tensor([ids], device=device),
                attention_mask=torch.ones(1, len(ids), dtype=torch.long, device=device),
                max_new_tokens=max_new_tokens,
                eos_token_id=self.end_tokens,
                pad_token_id=self.encoder.end_id,
                streamer=streamer,
                do_sample=False,
                logits_processor=processors,
            )
        tokenizer: Any = self.loaded.tokenizer
        return str(tokenizer.decode(output[0, len(ids) :], skip_special_tokens=True)).strip()

    @property
    def end_tokens(self) -> list[int]:
        """The tokens that end an answer."""
        return end_tokens(self.loaded.model, self.encoder.end_id)

    @property
    def system(self) -> str | None:
        """The system message of conversations that have none; None: the chat template's."""
        return self.recipe.data.system

    def with_system(self, text: str | None) -> Predictor:
        """Return the same model with another system message; None: the chat template's."""
        recipe = with_system(self.recipe, text)
        encoder = task_named(recipe.task).encoder(self.loaded, recipe)
        return replace(self, encoder=encoder, recipe=recipe)

    def _voice(self, tuned: bool) -> AbstractContextManager[None]:
        if not tuned and not self.adapted:
            raise RunError("full fine-tuning overwrote the base; load the base model by its name")
        return nullcontext() if tuned else adapter_disabled(self.loaded.model)


def load(
    run: str | Path | RunFolder, *, base: str | Path = "runs", progress: Progress | None = None
) -> Predictor:
    """Load the model of a run: `latest`, a run's name, or its folder; or a classifier's adapter.

    Args:
        run: a run, or the folder of an adapter with a classification head, as PEFT saves it.
        base: folder that runs are kept in.
        progress: reports loading.

    Raises:
        EtudeError: the run does not exist, has saved nothing yet, or is damaged.
    """
    if not isinstance(run, RunFolder) and is_adapter(run):
        return _load_adapter(Path(run), progress)
    folder = run if isinstance(run, RunFolder) else find_run(str(run), base)
    if folder.has_trials:
        what = "search" if folder.is_search else "cross-validation"
        raise RunError(
            f"{folder.path} is a {what}: name one of its runs, in {folder.path / 'trials'}"
        )
    recipe = trained_recipe(folder)
    use_threads(recipe.train.threads)
    if recipe.adapter.kind == "full":
        return _load_full(folder, recipe, progress)
    if not folder.adapter.is_dir():
        raise RunError(
            f"{folder.path} has no adapter yet; finish it: etude tune --resume {folder.path}"
        )
    record = TaskRecord.read(folder.adapter)
    head = task_named(recipe.task).saved_head(record)
    return _with_adapter(folder.adapter, _as_recorded(recipe, record), head, progress)


def is_adapter(path: str | Path) -> bool:
    """Return whether `path` is the folder of an adapter."""
    return (Path(path) / CONFIG).is_file()


def adapter_recipe(folder: Path) -> Recipe:
    """Return the recipe by which the adapter of a classifier is used: its base in float32.

    Raises:
        AdapterError: it is not a classifier, or does not name its base.
    """
    config = read_json(folder / CONFIG)
    base, kind = config.get("base_model_name_or_path"), config.get("task_type")
    if kind != "SEQ_CLS" or not base:
        raise AdapterError(
            f"{folder} is an adapter of task_type {kind}; only classifiers (SEQ_CLS) that name "
            "their base (base_model_name_or_path) can be used without a run"
        )
    model: dict[str, Any] = {"id": str(base), "dtype": "float32"}
    trained_on = read_adapter(folder).provenance
    if trained_on is not None and trained_on.kept_layers is not None:
        model |= {"id": trained_on.base, "keep_layers": trained_on.kept_layers}
    return Recipe.parse(
        {
            "task": "text-classification",
            "model": model,
            "quant": {"kind": "none"},
            "data": {"train": "-", "too_long": "cut_prompt"},
        }
    )


def _load_adapter(folder: Path, progress: Progress | None) -> Predictor:
    """Load the adapter of a classifier that has no run.

    Its labels are those of task.json, if there is one. Else they are numbered as transformers does
    it (LABEL_0), and one output is a number.
    """
    recipe = adapter_recipe(folder)
    model = with_tokens_of(read_adapter(folder), recipe.model)
    recipe = recipe.model_copy(update={"model": model})
    use_threads()
    record = TaskRecord.read(folder)
    if not (folder / RECORD).exists():
        outputs = _outputs(folder)
        names = tuple(f"LABEL_{index}" for index in range(outputs))
        number = {"kind": "number", "mean": 0.0, "deviation": 1.0}
        record = TaskRecord(recipe.task, *((), number) if outputs == 1 else (names, {}))
    head = task_named(recipe.task).saved_head(record)
    return _with_adapter(folder, recipe, head, progress)


def _outputs(folder: Path) -> int:
    """Return the number of outputs of an adapter's head.

    Raises:
        AdapterError: the adapter has no head.
    """
    heads = {
        f"{path}.{name}": tensor
        for path, tensors in read_adapter(folder).modules.items()
        for name, tensor in tensors.items()
        if name.endswith("weight") and tensor.dim() == 2
    }
    # Of a head of two layers (`classifier.dense`, `classifier.out_proj`) the second has them.
    last = next((name for name in heads if name.endswith("out_proj.weight")), None)
    last = last or next(reversed(heads), None)
    if last is None:
        raise AdapterError(
            f"{folder} lacks the trained head, without which predictions would be random; save it "
            "with modules_to_save"
        )
    return len(heads[last])


def _with_adapter(
    adapter: Path, recipe: Recipe, head: Head, progress: Progress | None
) -> Predictor:
    loaded = load_model(recipe.model, recipe.quant, progress, head)
    refuse_other_numbers(adapter, loaded.added)
    with UnquantizedWeights(loaded.files) as original:
        load_adapter(loaded.model, adapter, origin=loaded.origin, original=original)
    _require_head(loaded, adapter)
    encoder = task_named(recipe.task).encoder(loaded, recipe)
    return Predictor(loaded, encoder, adapted=True, recipe=recipe)


def _turns(prompt: str | Sequence[Message | Mapping[str, Any]]) -> tuple[Message, ...]:
    """Return the messages of a conversation given as text, plain data or messages."""
    if isinstance(prompt, str):
        return (Message("user", prompt),)
    turns: list[Message] = []
    for number, turn in enumerate(prompt, start=1):
        if isinstance(turn, Message):
            turns.append(turn)
        else:
            turns.append(read_message(turn, f"message {number}"))
    return tuple(turns)


def load_base(model: str, *, progress: Progress | None = None) -> Predictor:
    """Load a model without an adapter: an alias, a hub id, a folder or a `.gguf` file."""
    recipe = Recipe.parse(
        {"model": {"id": model}, "quant": {"kind": "none"}, "data": {"train": "-"}}
    )
    loaded = load_model(recipe.model, recipe.quant, progress)
    encoder = task_named(recipe.task).encoder(loaded, recipe)
    return Predictor(loaded, encoder, adapted=False, recipe=recipe)


def _load_full(folder: RunFolder, recipe: Recipe, progress: Progress | None) -> Predictor:
    path = folder.path / "model"
    if not path.is_dir():
        raise RunError(
            f"{folder.path} has no model yet; finish it: etude tune --resume {folder.path}"
        )
    # Its own files have the layers that are left.
    spec = recipe.model.model_copy(update={"id": str(path), "keep_layers": None})
    task, record = task_named(recipe.task), TaskRecord.read(path)
    loaded = load_model(spec, recipe.quant, progress, task.saved_head(record))
    if loaded.head.sees_images:
        # A head of other classes would be replaced by a new one.
        own = cast("dict[int, str]", loaded.files.config.id2label)
        if tuple(own.values()) != record.labels:
            raise AdapterError(
                f"{path} has the classes {', '.join(own.values())}, its task.json "
                f"{', '.join(record.labels)}; restore the file"
            )
    recipe = _as_recorded(recipe, record)
    return Predictor(loaded, task.encoder(loaded, recipe), adapted=False, recipe=recipe)


def _as_recorded(recipe: Recipe, record: TaskRecord) -> Recipe:
    """Return the recipe with the length of answers that training found, if it leaves it open."""
    found = record.options.get("max_new_tokens")
    if found is None or recipe.eval.max_new_tokens is not None:
        return recipe
    spec = recipe.eval.model_copy(update={"max_new_tokens": int(found)})
    return recipe.model_copy(update={"eval": spec})


def _require_head(loaded: LoadedModel, adapter: Path) -> None:
    """Refuse predictions with a randomly initialised head, if the adapter contains none.

    Raises:
        AdapterError: naming the modules that are missing.
    """
    if not loaded.head.is_new:
        return
    trained = saved_modules(loaded.model)
    missing = [name for name in head_modules(loaded.model) if name not in trained]
    if missing:
        raise AdapterError(
            f"{adapter} lacks the trained head ({', '.join(missing)}), without which "
            "predictions would be random"
        )
