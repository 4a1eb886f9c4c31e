"""Inference with a tuned model; base and tuned answers share one set of weights in memory."""

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
from etude.tuning.models.foreign_code import foreign_code
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

    def predict(self, inputs: Sequence[str], *, tuned: bool = True) -> list[Prediction]:
        """Return the prediction for each input: an answer, or a class with its probability.

        Args:
            inputs: prompts, or texts to classify.
            tuned: False uses the base.

        Raises:
            RunError: the base is requested, but full fine-tuning has overwritten it.
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
            tuned: False uses the base.
            max_new_tokens: maximum length of an answer; longer ones are truncated.
            temperature: 0 for greedy decoding.
            streamer: a transformers streamer; receives each token.

        Raises:
            RunError: the model is not a language model, or the base is requested after full
                fine-tuning.
        """
        if self.loaded.head.is_new:
            raise RunError(
                f"this run has task: {self.recipe.task}, which does not generate text; use predict"
            )
        turns = (Message("user", prompt),) if isinstance(prompt, str) else tuple(prompt)
        ids = self.encoder.prompt_ids(as_trained(turns, self.encoder.spec, "the conversation"))
        model: Any = self.loaded.model
        device = self.loaded.placement.device
        options: dict[str, Any] = {"do_sample": False}
        if temperature > 0:
            options = {"do_sample": True, "temperature": temperature}
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
                eos_token_id=end_tokens(model, self.encoder.end_id),
                pad_token_id=self.encoder.end_id,
                streamer=streamer,
                **options,
            )
        tokenizer: Any = self.loaded.tokenizer
        return str(tokenizer.decode(output[0, len(ids) :], skip_special_tokens=True)).strip()

    def _voice(self, tuned: bool) -> AbstractContextManager[None]:
        if not tuned and not self.adapted:
            raise RunError("full fine-tuning overwrote the base; load the base model by its name")
        return nullcontext() if tuned else adapter_disabled(self.loaded.model)


def load(
    run: str | Path | RunFolder, *, base: str | Path = "runs", progress: Progress | None = None
) -> Predictor:
    """Load the model of a run: `latest`, a run's name, or its folder.

    Raises:
        EtudeError: the run does not exist, has saved nothing yet, or is damaged.
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
    spec = recipe.model.model_copy(update={"id": str(path)})
    task = task_named(recipe.task)
    loaded = load_model(spec, recipe.quant, progress, task.saved_head(TaskRecord.read(path)))
    return Predictor(loaded, task.encoder(loaded, recipe), adapted=False, recipe=recipe)


def _require_head(loaded: LoadedModel, folder: RunFolder) -> None:
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
            f"{folder.adapter} lacks the trained head ({', '.join(missing)}), without which "
            "predictions would be random"
        )
