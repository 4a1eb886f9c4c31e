"""A tuned model to talk to: base and tuned answers from the same weights in memory."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from etude.core.errors import AdapterError, RunError
from etude.core.machine import this_machine
from etude.core.progress import Progress
from etude.tuning.adapters.modules_to_save import saved_modules
from etude.tuning.adapters.multi_adapter import adapter_disabled
from etude.tuning.adapters.save import load_adapter
from etude.tuning.config.recipe import Recipe
from etude.tuning.data.schema import Message
from etude.tuning.models.heads import head_modules
from etude.tuning.models.load import LoadedModel, load_model
from etude.tuning.models.unquantized import UnquantizedWeights
from etude.tuning.quant.linear import dense_weights
from etude.tuning.runs.folder import RunFolder, find_run
from etude.tuning.tasks.base import Prediction, TaskRecord
from etude.tuning.tasks.causal_lm import as_trained
from etude.tuning.tasks.registry import task_named
from etude.tuning.training.evaluate import end_tokens


@dataclass(frozen=True)
class Predictor:
    """A model with its adapter (or after full fine-tuning), ready to answer.

    Templates, system message and end token are those of training, so nothing differs at the
    other end.
    """

    loaded: LoadedModel
    encoder: Any
    """What the task encodes its inputs with."""
    adapted: bool
    """Whether there is an adapter that can be switched off to hear the base."""
    recipe: Recipe
    """Of the run; of a base model, one with defaults."""

    def predict(self, inputs: Sequence[str], *, tuned: bool = True) -> list[Prediction]:
        """Return what the model gives each input: an answer, or a class with its probability.

        Args:
            inputs: prompts, or texts to classify.
            tuned: False lets the base predict.

        Raises:
            RunError: the base is asked for, but full fine-tuning has overwritten it.
        """
        with self._voice(tuned):
            task = task_named(self.recipe.task)
            return task.predict(self.loaded, self.encoder, inputs, self.recipe)

    def reply(
        self,
        prompt: str | Sequence[Message],
        *,
        tuned: bool = True,
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        streamer: Any = None,
    ) -> str:
        """Answer a prompt, or the last message of a conversation.

        Args:
            prompt: a user's message, or the messages so far.
            tuned: False lets the base answer.
            max_new_tokens: an answer that has not ended by then is cut.
            temperature: 0 for the likeliest token each time.
            streamer: a transformers streamer, told of each token.

        Raises:
            RunError: the model is no language model, or the base is asked for, but full
                fine-tuning has overwritten it.
        """
        if self.loaded.head.is_new:
            raise RunError(
                f"this run is for task: {self.recipe.task}, which answers no messages; use predict"
            )
        turns = (Message("user", prompt),) if isinstance(prompt, str) else tuple(prompt)
        ids = self.encoder.prompt_ids(as_trained(turns, self.encoder.spec, "the conversation"))
        model: Any = self.loaded.model
        device = self.loaded.placement.device
        options: dict[str, Any] = {"do_sample": False}
        if temperature > 0:
            options = {"do_sample": True, "temperature": temperature}
        with torch.inference_mode(), dense_weights(model), self._voice(tuned):
            output = model.generate(
                input_ids=torch.tensor([ids], device=device),
                attention_mask=torch.ones(1, len(ids), dtype=torch.long, device=device),
                max_new_tokens=max_new_tokens,
                eos_token_id=end_tokens(model, self.encoder.end_id),
                pad_token_id=self.encoder.end_id,
                streamer=streamer,
                **options,
            )
        tokenizer: Any = self.loaded.tokenizer
        return str(tokenizer.decode(output[0, len(ids) :], skip_special_tokens=True)).strip()

    def _voice(self, tuned: bool) -> AbstractContextManager[None]:
        if not tuned and not self.adapted:
            raise RunError("full fine-tuning changed the base itself; load it by its own name")
        return nullcontext() if tuned else adapter_disabled(self.loaded.model)


def load(
    run: str | Path | RunFolder, *, base: str | Path = "runs", progress: Progress | None = None
) -> Predictor:
    """Load the model that a run made: `latest`, a run's name, or its folder.

    Raises:
        EtudeError: no such run, it saved nothing yet, or its files are damaged.
    """
    folder = run if isinstance(run, RunFolder) else find_run(str(run), base)
    recipe = Recipe.read_run(folder.recipe)
    torch.set_num_threads(recipe.train.threads or this_machine().physical_cores)
    if recipe.adapter.kind == "full":
        return _load_full(folder, recipe, progress)
    if not folder.adapter.is_dir():
        raise RunError(f"{folder.path} has no adapter yet; finish it: etude tune --resume {run}")
    task = task_named(recipe.task)
    head = task.saved_head(TaskRecord.read(folder.adapter))
    loaded = load_model(recipe.model, recipe.quant, progress, head)
    with UnquantizedWeights(loaded.files) as original:
        load_adapter(loaded.model, folder.adapter, origin=loaded.origin, original=original)
    _require_head(loaded, folder)
    return Predictor(loaded, task.encoder(loaded, recipe), adapted=True, recipe=recipe)


def load_base(model: str, *, progress: Progress | None = None) -> Predictor:
    """Load a model as it is: an alias, a hub id, a folder or a `.gguf` file."""
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
    spec = recipe.model.model_copy(update={"id": str(path)})
    task = task_named(recipe.task)
    loaded = load_model(spec, recipe.quant, progress, task.saved_head(TaskRecord.read(path)))
    return Predictor(loaded, task.encoder(loaded, recipe), adapted=False, recipe=recipe)


def _require_head(loaded: LoadedModel, folder: RunFolder) -> None:
    """Refuse predictions by a head that was drawn anew, because the adapter holds none.

    Raises:
        AdapterError: naming the modules that are missing.
    """
    if not loaded.head.is_new:
        return
    trained = saved_modules(loaded.model)
    missing = [name for name in head_modules(loaded.model) if name not in trained]
    if missing:
        raise AdapterError(
            f"{folder.adapter} lacks the head that was trained ({', '.join(missing)}): without it "
            "predictions would be random"
        )
