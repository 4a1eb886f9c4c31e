"""Recipe: everything that decides what a run does, in one typed, checked document.

A recipe is read from YAML, overridden by `--set adapter.rank=8`, checked once, here, and
written back resolved as `recipe.yaml` into the run's folder. Inner code trusts it and holds
no defaults of its own.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from etude.errors import RecipeError, did_you_mean

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


class Section(BaseModel):
    """A part of a recipe: unknown keys are refused, values are checked, then frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class AdapterSpec(Section):
    """Which weights are trained, and how they are parametrised."""

    kind: Literal["lora", "none"] = "lora"
    """`lora`: ΔW = U Vᵀ on the target modules. `none`: full fine-tuning, every weight trained."""

    rank: Annotated[int, Field(ge=1)] = 16
    """r, the number of columns of U and V."""

    alpha: Annotated[float, Field(gt=0)] = 32.0
    """The update is scaled by alpha / rank."""

    dropout: Fraction = 0.0
    """Dropout on the adapter's input, in training only."""

    targets: str | list[str] = "all-linear"
    """`all-linear` (every Linear but the output head), module names, or patterns (`*.mlp.*`)."""


class QuantSpec(Section):
    """How the frozen base is held in memory."""

    kind: Literal["nf4", "none"] = "nf4"
    """`nf4`: 4-bit NormalFloat codes (QLoRA). `none`: the weights as they are."""

    block: Literal[32, 64, 128, 256, 512, 1024, 2048, 4096] = 64
    """Weights that share one scale."""

    double: bool = True
    """Quantise the scales too, to 8 bits, 256 of them sharing one scale."""


class ModelSpec(Section):
    """The base model."""

    id: str = "smollm2-135m"
    """An alias (`etude models list`), a hub id, a folder, or a `.gguf` file."""

    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """Arithmetic of the forward pass. `auto`: bfloat16 where the processor has it natively."""


class DataSpec(Section):
    """What the model learns from."""

    kind: Literal["files", "hub", "docstrings"] = "files"
    """`files`: JSONL, CSV or Parquet. `hub`: a data set of the Hugging Face hub.
    `docstrings`: (function source, summary line) pairs from installed Python packages."""

    train: str | None = None
    """Path of the training file, or the hub's id of the data set."""

    eval: str | None = None
    """Path of the evaluation file. None: `eval_fraction` of the training file is held out."""

    eval_fraction: Fraction = 0.05
    """Share of the rows held out where no evaluation file is named."""

    train_split: str = "train"
    """Split to train on (`hub` only)."""

    eval_split: str | None = None
    """Split to evaluate on (`hub` only). None: `eval_fraction` is held out."""

    config: str | None = None
    """Configuration of the data set (`hub` only)."""

    packages: list[str] = []
    """`docstrings` only: names of installed packages, or folders. Empty: all that is installed."""

    eval_packages: list[str] = []
    """`docstrings` only: packages held out of training and used to evaluate."""

    format: Literal["auto", "messages", "prompt_completion", "text"] = "auto"
    """How a row is read. `auto`: from its columns."""

    prompt: str = "prompt"
    """Column, or template with {columns}, of the prompt."""

    completion: str = "completion"
    """Column, or template with {columns}, of the answer."""

    text: str = "text"
    """Column of plain text."""

    system: str | None = None
    """System message put before every conversation that has none."""

    max_train: Annotated[int, Field(ge=1)] | None = None
    """Use at most this many training samples, drawn by the seed."""

    max_eval: Annotated[int, Field(ge=1)] | None = None
    """Use at most this many evaluation samples, drawn by the seed."""

    max_length: Annotated[int, Field(ge=8)] = 512
    """Tokens a sample may have."""

    too_long: Literal["drop", "cut_prompt", "error"] = "drop"
    """A sample over `max_length`: leave it out and count it, cut its prompt from the left (never
    the answer), or stop."""

    no_trained_tokens: Literal["error", "drop"] = "error"
    """A sample without a trained token: stop and name it, or leave it out and count it."""

    packing: bool = True
    """Lay samples end to end in one row, each attending to itself only, positions restarted."""


class TrainSpec(Section):
    """The training loop."""

    epochs: Annotated[float, Field(gt=0)] = 1.0
    """Passes over the training data."""

    max_steps: Annotated[int, Field(ge=1)] | None = None
    """Stop after this many optimiser steps."""

    max_minutes: Annotated[float, Field(gt=0)] | None = None
    """Plan the schedule to end within this many minutes of training, by the measured speed of the
    first steps. A run planned by time is not the same run on another machine."""

    batch_samples: Annotated[int, Field(ge=1)] = 16
    """Samples an optimiser step."""

    micro_tokens: Annotated[int, Field(ge=16)] = 1024
    """Tokens of one forward pass; a step accumulates as many as its samples need."""

    lr: Annotated[float, Field(gt=0)] = 1e-3
    """Peak learning rate, per optimiser step."""

    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Shape of the learning rate after warm-up."""

    warmup: Fraction = 0.05
    """Share of the steps in which the learning rate rises from zero."""

    final_lr: Fraction = 0.1
    """Learning rate at the end, as a share of the peak (cosine, linear)."""

    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled weight decay (AdamW)."""

    beta1: Fraction = 0.9
    """AdamW's decay of the first moment."""

    beta2: Fraction = 0.999
    """AdamW's decay of the second moment."""

    clip: Annotated[float, Field(gt=0)] | None = 1.0
    """Largest L2 norm of the gradient over all trained weights."""

    checkpointing: bool = False
    """Recompute each layer in the backward pass instead of keeping its activations."""

    eval_every: Annotated[int, Field(ge=1)] | None = None
    """Optimiser steps between evaluations. None: before and after training only."""

    patience: Annotated[int, Field(ge=1)] | None = None
    """Stop after this many evaluations without a better loss."""

    save_every: Annotated[int, Field(ge=1)] = 20
    """Optimiser steps between checkpoints: what a killed run loses at most."""

    seed: int = 0
    """Seeds initialisation, order and dropout."""

    threads: Annotated[int, Field(ge=1)] | None = None
    """Processor threads. None: the physical cores that this process may use."""


class EvalSpec(Section):
    """What is measured before and after training."""

    generate: Annotated[int, Field(ge=0)] = 64
    """Evaluation samples for which an answer is generated and scored by ROUGE-L."""

    show: Annotated[int, Field(ge=0)] = 3
    """Samples printed before and after."""

    max_new_tokens: Annotated[int, Field(ge=1)] = 64
    """Longest generated answer."""

    batch_samples: Annotated[int, Field(ge=1)] = 16
    """Answers generated at a time."""


class Recipe(Section):
    """One run: model, adapter, base precision, data, training, evaluation."""

    name: str = "run"
    """Name of the run; its folder is `runs/<name>-<time>`."""

    model: ModelSpec = ModelSpec()
    """The base model; a plain string is its id."""

    adapter: AdapterSpec = AdapterSpec()
    """Which weights are trained."""

    quant: QuantSpec = QuantSpec()
    """How the frozen base is held."""

    data: DataSpec = DataSpec()
    """What is learnt from."""

    train: TrainSpec = TrainSpec()
    """How it is learnt."""

    eval: EvalSpec = EvalSpec()
    """How the outcome is measured."""

    @model_validator(mode="before")
    @classmethod
    def _model_by_name(cls, value: Any) -> Any:
        fields: Any = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
        if isinstance(fields.get("model"), str):
            return {**fields, "model": {"id": fields["model"]}}
        return cast("Any", value)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.adapter.kind == "none" and self.quant.kind != "none":
            raise ValueError(
                "full fine-tuning (adapter.kind: none) cannot train a quantised base; "
                "set quant.kind: none, or adapter.kind: lora"
            )
        if self.data.kind != "docstrings" and self.data.train is None:
            raise ValueError("data.train is missing: a file, or a data set's id")
        if self.train.patience is not None and self.train.eval_every is None:
            raise ValueError("train.patience needs train.eval_every")
        return self

    @property
    def method(self) -> Literal["qlora", "lora", "full"]:
        """The common name of what this recipe does."""
        if self.adapter.kind == "none":
            return "full"
        return "qlora" if self.quant.kind == "nf4" else "lora"

    def with_method(self, method: Literal["qlora", "lora", "full"]) -> Recipe:
        """Return this recipe with another method, everything else alike.

        Full fine-tuning takes a tenth of the learning rate: adapters want about ten times
        the rate of full weights (Schulman et al. 2025, "LoRA Without Regret").
        """
        if method == self.method:
            return self
        lr = self.train.lr
        if method == "full":
            lr /= 10
        elif self.method == "full":
            lr *= 10
        return self.model_copy(
            update={
                "adapter": self.adapter.model_copy(
                    update={"kind": "none" if method == "full" else "lora"}
                ),
                "quant": self.quant.model_copy(
                    update={"kind": "nf4" if method == "qlora" else "none"}
                ),
                "train": self.train.model_copy(update={"lr": lr}),
            }
        )

    @classmethod
    def parse(cls, fields: dict[str, Any], origin: str = "recipe") -> Recipe:
        """Check plain data and return the recipe.

        Raises:
            RecipeError: naming the key, what is wrong with it, and the nearest known key.
        """
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise RecipeError(f"{origin}: {_explain(error)}") from None

    @classmethod
    def read(
        cls,
        path: str | os.PathLike[str],
        overrides: list[str] | None = None,
        *,
        data: str | None = None,
    ) -> Recipe:
        """Read a YAML file.

        Args:
            path: the file.
            overrides: `dotted.key=value`, values read as YAML.
            data: what to train on instead: a file, or a package or folder for docstrings.

        Raises:
            RecipeError: the file is missing, is not YAML, or does not fit.
        """
        file = Path(path)
        try:
            loaded: Any = yaml.safe_load(file.read_text("utf-8"))
        except FileNotFoundError:
            raise RecipeError(f"no recipe at {file}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"cannot read {file}: {error}") from None
        except yaml.YAMLError as error:
            raise RecipeError(f"{file} is not YAML: {_one_line(error)}") from None
        if not isinstance(loaded, dict):
            raise RecipeError(f"{file} holds no recipe: expected keys such as model, data, train")
        fields = cast("dict[str, Any]", loaded)
        for override in overrides or []:
            apply_override(fields, override)
        if data is not None:
            _train_on(fields, data)
        return cls.parse(fields, str(file))

    def to_yaml(self) -> str:
        """Return the resolved recipe, every key written out; `parse` gives back an equal one."""
        fields = self.model_dump(mode="json")
        text = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)
        # PyYAML writes a few line separators of Unicode unescaped and reads them as line ends.
        if yaml.safe_load(text) != fields:
            text = yaml.safe_dump(fields, sort_keys=False)
        return text


def apply_override(fields: dict[str, Any], override: str) -> None:
    """Set `dotted.key=value` in nested `fields`, in place; the value is read as YAML.

    Raises:
        RecipeError: no `=`, or the path leads through a value that is not a section.
    """
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"--set wants key=value, as in adapter.rank=8; got {override!r}")
    try:
        value: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"--set {override}: the value is not YAML: {_one_line(error)}") from None
    # YAML 1.1 reads 1e-3 as text, which nobody who sets a learning rate means.
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", value):
        value = float(value)
    *path, last = key.strip().split(".")
    section = fields
    for part in path:
        inner: Any = section.get(part)
        if inner is None:
            inner = {}
        elif part == "model" and isinstance(inner, str):
            inner = {"id": inner}
        if not isinstance(inner, dict):
            raise RecipeError(f"--set {override}: {part!r} is a value, not a section")
        section[part] = inner
        section = cast("dict[str, Any]", inner)
    section[last] = value


def _train_on(fields: dict[str, Any], data: str) -> None:
    """Put `data` in place of what the recipe trains on, held-out data included."""
    section: Any = fields.get("data") or {}
    if not isinstance(section, dict):
        return  # the check of the whole recipe says what is wrong with it
    kept = cast("dict[str, Any]", section)
    if kept.get("kind") == "docstrings":
        fields["data"] = {**kept, "packages": [data], "eval_packages": []}
    else:
        fields["data"] = {**kept, "kind": "files", "train": data, "eval": None}


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    """Return the keys of the section that `location` (the path of an unknown key) lies in."""
    section: type[BaseModel] = Recipe
    for part in location[:-1]:
        field = section.model_fields.get(str(part))
        if field is None or not isinstance(field.annotation, type):
            return []
        if not issubclass(field.annotation, BaseModel):
            return []
        section = field.annotation
    return list(section.model_fields)


def _explain(error: ValidationError) -> str:
    """Say all that is wrong, one clause a fault, in the recipe's own words."""
    clauses: list[str] = []
    for fault in error.errors():
        path = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            known = _known_keys(fault["loc"])
            hint = did_you_mean(str(fault["loc"][-1]), known) or f" (known: {', '.join(known)})"
            clauses.append(f"unknown key {path!r}{hint}")
        elif fault["type"] == "value_error":
            clauses.append(fault["msg"].removeprefix("Value error, "))
        else:
            message = fault["msg"][0].lower() + fault["msg"][1:]
            clauses.append(f"{path}: {message}, got {fault['input']!r}")
    return "; ".join(dict.fromkeys(clauses))
