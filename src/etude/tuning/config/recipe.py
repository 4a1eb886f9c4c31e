"""Recipe: the complete specification of a run, in one typed, validated document.

A recipe is read from YAML, overridden by `--set adapter.rank=8`, validated once, here, and written
back resolved as `recipe.yaml` into the run's folder. Other code trusts it and has no defaults of
its own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, cast

import yaml
from pydantic import ValidationError, model_validator

from etude.core.errors import RecipeError, did_you_mean
from etude.tuning.config import renamed_keys
from etude.tuning.config.consistency import check_images, check_teacher, check_weights
from etude.tuning.config.near_keys import suggest
from etude.tuning.config.sections.adapter import TRAINS_UP_FACTOR, AdapterSpec
from etude.tuning.config.sections.base import Section
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.config.sections.eval import EvalSpec
from etude.tuning.config.sections.model import ModelSpec
from etude.tuning.config.sections.objective import ObjectiveSpec
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.config.sections.train import TrainSpec
from etude.tuning.config.shipped import find_recipe

NO_NEW_HEAD = ("chat", "language-modeling", "embedding")
"""Tasks whose model has no head beside that of its checkpoint."""


class Recipe(Section):
    """One run: model, adapter, base precision, data, training, evaluation."""

    name: str = "run"
    """Name of the run; its folder is `runs/<name>-<time>`."""

    task: Literal[
        "auto",
        "chat",
        "language-modeling",
        "text-classification",
        "token-classification",
        "image-classification",
        "embedding",
        "reranking",
    ] = "chat"
    """What the model is tuned for. `chat`: answering, in conversations, to prompts or by
    preferences. `language-modeling`: the text of documents itself, to adapt to a domain.
    `text-classification`: assigning a class, several labels or a number (`data.label`) to a text
    (`data.text`) or a pair of texts (`data.text_pair`). `token-classification`: finding entities,
    from words (`data.words`) and tags (`data.tags`), or text and spans (`data.spans`).
    `image-classification`: assigning a class to an image, of a folder of folders or by its path
    (`data.image`). `embedding`: vectors that are near for texts that belong together (`data.text`
    and `data.positive`, or texts of one class). `reranking`: scores of documents for a query, which
    the model reads together (the same columns). `auto`: read from the data."""

    model: ModelSpec = ModelSpec()
    """The base model; a plain string is its id."""

    adapter: AdapterSpec = AdapterSpec()
    """Trained weights and their parametrisation."""

    quant: QuantSpec = QuantSpec()
    """Quantisation of the frozen base."""

    data: DataSpec = DataSpec()
    """Training and evaluation data."""

    train: TrainSpec = TrainSpec()
    """The training loop."""

    objective: ObjectiveSpec = ObjectiveSpec()
    """The training objective."""

    eval: EvalSpec = EvalSpec()
    """Evaluation."""

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        fields = dict(cast("dict[str, Any]", value))
        if isinstance(fields.get("model"), str):
            fields["model"] = {"id": fields["model"]}
        if isinstance(fields.get("task"), str):
            fields["task"] = renamed_keys.current_task(fields["task"])
        return fields

    @model_validator(mode="before")
    @classmethod
    def _labels_of_kto(cls, value: Any) -> Any:
        """Read labels of 1 and 0 as desirable or not where the objective needs just that."""
        fields: Any = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
        objective, data = fields.get("objective"), fields.get("data")
        if not isinstance(objective, dict) or not isinstance(data, dict):
            return cast("Any", value)
        section = cast("dict[str, Any]", data)
        kind = cast("dict[str, Any]", objective).get("kind")
        if kind != "kto" or section.get("format", "auto") != "auto":
            return cast("Any", value)
        return {**fields, "data": {**section, "format": "unpaired_preference"}}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.adapter.kind == "full" and self.quant.kind != "none":
            raise ValueError(
                "full fine-tuning (adapter.kind: full) cannot train a quantised base; "
                "set quant.kind: none, or adapter.kind: lora"
            )
        if (
            self.adapter.kind == "head"
            and self.task in ("chat", "language-modeling")
            and not self.adapter.modules_to_save
            and not self.model.adds_tokens
        ):
            raise ValueError(
                f"adapter.kind: head trains the new head of a task, and {self.task} has none; name "
                "modules to train by adapter.modules_to_save, or set adapter.kind: lora"
            )
        if self.model.adds_tokens and self.adapter.kind in ("vera", "ia3"):
            raise ValueError(
                f"model.add_tokens: PEFT has no rows of new tokens beside adapter.kind: "
                f"{self.adapter.kind}; set adapter.kind: lora, dora, adalora, head or full"
            )
        if self.task == "text-classification":
            if self.objective.kind not in ("auto", "distill"):
                raise ValueError(
                    f"objective.kind: {self.objective.kind} is for task: chat; a classifier "
                    "is trained by cross-entropy over its classes, so omit it"
                )
            if self.data.kind == "docstrings":
                raise ValueError("data.kind: docstrings has no class labels; use data.kind: files")
        if self.task == "token-classification":
            if self.objective.kind not in ("auto", "distill"):
                raise ValueError(
                    f"objective.kind: {self.objective.kind} is for task: chat; a tagger is "
                    "trained by cross-entropy over the tags of its words, so omit it"
                )
            if self.data.kind == "docstrings":
                raise ValueError("data.kind: docstrings has no tags; use data.kind: files")
        if self.model.keep_layers is not None and self.quant.kind == "native":
            raise ValueError(
                "model.keep_layers: the layers of files that are quantised (quant.kind: native) "
                "cannot be left out; set quant.kind: nf4"
            )
        if self.task == "image-classification":
            check_images(self.data, self.train, self.objective, self.model)
        self._check_generation()
        check_weights(self.train, self.adapter)
        check_teacher(self.task, self.objective, self.adapter, self.quant)
        if self.task == "reranking" and self.data.hard_negatives > self.data.negatives:
            raise ValueError(
                f"data.hard_negatives {self.data.hard_negatives} are part of data.negatives "
                f"{self.data.negatives}; lower the first, or raise the second"
            )
        if self.task not in ("text-classification", "image-classification", "auto"):
            self._refuse_class_options()
        if self.train.head_lr_ratio != 1 and self.task in NO_NEW_HEAD:
            raise ValueError(f"train.head_lr_ratio: task: {self.task} has no new head; omit it")
        if self.objective.label_smoothing > 0 and self.objective.focal_gamma > 0:
            raise ValueError(
                "objective.label_smoothing and objective.focal_gamma change the loss of the same "
                "labels in opposite ways; choose one"
            )
        if self.train.patience is not None and self.train.eval_every is None:
            raise ValueError("train.patience needs train.eval_every")
        if self.train.loraplus_lr_ratio != 1 and self.adapter.kind not in TRAINS_UP_FACTOR:
            raise ValueError(
                "train.loraplus_lr_ratio requires a trained factor U, which adapter.kind: "
                f"{self.adapter.kind} does not have; omit it, or set adapter.kind: lora"
            )
        return self

    def _check_generation(self) -> None:
        """Refuse settings of one generating task in a recipe of another task."""
        spec = self.eval
        for task, keys in (
            (
                "chat",
                {
                    "eval.metrics": spec.metrics,
                    "eval.baselines": spec.baselines,
                    "eval.answer_pattern": spec.answer_pattern,
                },
            ),
            (
                "language-modeling",
                {
                    "eval.general": spec.general,
                    "eval.stride": spec.stride,
                    "data.document_start": self.data.document_start,
                    "data.replay.file": self.data.replay.file,
                },
            ),
        ):
            named = [key for key, value in keys.items() if value not in (None, [])]
            if named and self.task not in (task, "auto"):
                raise ValueError(
                    f"{named[0]} is for task: {task}, and this recipe has task: {self.task}; "
                    "omit it, or change the task"
                )
        if self.task == "language-modeling":
            if self.objective.kind not in ("auto", "sft"):
                raise ValueError(
                    f"objective.kind: {self.objective.kind} is for task: chat; text is trained by "
                    "cross-entropy of every token, so omit it"
                )
            if self.data.kind == "docstrings":
                raise ValueError(
                    "data.kind: docstrings has questions and answers: use task: chat; to train on "
                    "source code as text, name its folder by data.train with data.kind: files"
                )
            if spec.stride is not None and spec.stride >= self.data.max_length:
                raise ValueError(
                    f"eval.stride {spec.stride} must be below data.max_length "
                    f"{self.data.max_length}: windows overlap by the difference"
                )

    def _refuse_class_options(self) -> None:
        """Refuse the options of text classification in other tasks."""
        given = {
            "objective.class_weights": self.objective.class_weights != "none",
            "objective.focal_gamma": self.objective.focal_gamma > 0,
            "objective.label_smoothing": self.task != "chat" and self.objective.label_smoothing > 0,
            "train.sampling": self.train.sampling != "shuffle",
            "data.text_pair": self.data.text_pair is not None,
            "data.label_columns": bool(self.data.label_columns),
            "data.label_separator": self.data.label_separator is not None,
        }
        for option, chosen in given.items():
            if chosen:
                raise ValueError(f"{option} is for task: text-classification, not {self.task}")

    @property
    def method(self) -> Literal["qlora", "lora", "head", "full"]:
        """The common name of the fine-tuning method."""
        if self.adapter.kind in ("head", "full"):
            return self.adapter.kind
        return "lora" if self.quant.kind == "none" else "qlora"

    def with_method(self, method: Literal["qlora", "lora", "full"]) -> Recipe:
        """Return this recipe with another method and otherwise unchanged.

        Full fine-tuning uses a tenth of the learning rate: adapters need about ten times the rate
        of full weights (Schulman et al. 2025, "LoRA Without Regret").
        """
        if method == self.method:
            return self
        lr = self.train.lr
        if method == "full":
            lr /= 10
        elif self.method == "full":
            lr *= 10
        adapter = "lora" if self.adapter.kind in ("head", "full") else self.adapter.kind
        quant = "nf4" if self.quant.kind == "none" else self.quant.kind
        adapter = "full" if method == "full" else adapter
        quant = quant if method == "qlora" else "none"
        train = {"lr": lr}
        if method == "full":
            # There are no factors.
            train |= {"loraplus_lr_ratio": 1.0, "delta_decay": 0.0}
        return self.model_copy(
            update={
                "adapter": self.adapter.model_copy(update={"kind": adapter}),
                "quant": self.quant.model_copy(update={"kind": quant}),
                "train": self.train.model_copy(update=train),
            }
        )

    @classmethod
    def parse(cls, fields: dict[str, Any], origin: str = "recipe") -> Recipe:
        """Validate plain data and return the recipe.

        Raises:
            RecipeError: the data are invalid; the message names the key and the nearest known key.
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
            path: the file, or the name of a recipe that Etude ships with, such as `docstrings`.
            overrides: `dotted.key=value`, values read as YAML.
            data: training data to use instead: a file, or a package or folder for docstrings.

        Raises:
            RecipeError: the file is missing, is not YAML, or is invalid.
        """
        file = find_recipe(path)
        fields = read_fields(file, overrides or [], data=data)
        return cls.parse(fields, str(file))

    @classmethod
    def read_run(cls, path: str | os.PathLike[str]) -> Recipe:
        """Read a run's recipe, written by any version of Etude.

        Args:
            path: the `recipe.yaml` in the run's folder.

        Raises:
            RecipeError: the file is missing, is not YAML, or is invalid.
        """
        return cls.parse(renamed_keys.translated(_load(Path(path))), str(path))

    def require_data(self) -> None:
        """Check that the recipe names training data.

        Raises:
            RecipeError: it names none.
        """
        if self.data.kind != "docstrings" and self.data.train is None:
            raise RecipeError(
                "data.train is missing: a file, or a data set's id; name one by --data"
            )

    def to_yaml(self) -> str:
        """Return the resolved recipe, with every key; `parse` returns an equal one."""
        fields = self.model_dump(mode="json")
        text = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)
        # PyYAML writes some Unicode line separators unescaped and reads them as line ends.
        if yaml.safe_load(text) != fields:
            text = yaml.safe_dump(fields, sort_keys=False)
        return text


def read_fields(
    file: Path, overrides: Sequence[str] = (), *, data: str | None = None
) -> dict[str, Any]:
    """Return the plain data of a recipe's YAML file, changed, and not validated.

    Args:
        file: the file.
        overrides: `dotted.key=value`, values read as YAML.
        data: training data to use instead.

    Raises:
        RecipeError: the file is missing or is not YAML, or an override is not one.
    """
    fields = _load(file)
    if data is not None:
        _train_on(fields, data)
    # Last, so that `--data train.csv --set data.eval=dev.csv` evaluates on dev.csv.
    for override in overrides:
        apply_override(fields, override)
    return fields


def apply_override(fields: dict[str, Any], override: str) -> None:
    """Set `dotted.key=value` in nested `fields`, in place; the value is read as YAML.

    Raises:
        RecipeError: no `=`, or the path leads through a value that is not a section.
    """
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"--set requires key=value, as in adapter.rank=8; got {override!r}")
    try:
        value: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"--set {override}: the value is not YAML: {_one_line(error)}") from None
    # YAML 1.1 reads 1e-3 as text; a number is meant.
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
    """Replace the recipe's training data by `data`, and drop its evaluation and test data."""
    section: Any = fields.get("data") or {}
    if not isinstance(section, dict):
        return  # reported by the validation of the whole recipe
    kept = cast("dict[str, Any]", section)
    if kept.get("kind") == "docstrings":
        fields["data"] = {**kept, "packages": [data], "eval_packages": []}
    else:
        fields["data"] = {**kept, "kind": "files", "train": data, "eval": None, "test": None}


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _load(file: Path) -> dict[str, Any]:
    """Return the plain data of a recipe's YAML file."""
    try:
        loaded: Any = yaml.safe_load(file.read_text("utf-8"))
    except FileNotFoundError:
        raise RecipeError(f"no recipe at {file}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot read {file}: {error}") from None
    except yaml.YAMLError as error:
        raise RecipeError(f"{file} is not YAML: {_one_line(error)}") from None
    if not isinstance(loaded, dict):
        raise RecipeError(f"{file} is not a recipe: expected keys such as model, data, train")
    return cast("dict[str, Any]", loaded)


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a recipe."""

    key: str
    """Dotted; empty where several keys contradict each other, or the text is no recipe."""
    message: str


def faults(fields: dict[str, Any]) -> list[Fault]:
    """Return everything that is wrong with plain data as a recipe, key by key."""
    try:
        Recipe.model_validate(fields)
    except ValidationError as error:
        return _faults(error)
    return []


def _explain(error: ValidationError) -> str:
    """Describe all validation errors, one clause each, in terms of the recipe."""
    return "; ".join(dict.fromkeys(fault.message for fault in _faults(error)))


def _faults(error: ValidationError) -> list[Fault]:
    found: list[Fault] = []
    for fault in error.errors():
        path = ".".join(str(part) for part in fault["loc"])
        if path == "search" or _is_range(fault["input"]):
            what = "belongs to a space" if path == "search" else "is a range of values"
            message = f"{path} {what}, which `etude search` takes; a run has one value of each key"
        elif fault["type"] == "extra_forbidden":
            called = renamed_keys.answer(path)
            message = called or f"unknown key {path!r}{suggest(path, Recipe)}"
        elif said := renamed_keys.renamed_value(path, fault["input"]):
            message = said
        elif fault["type"] == "model_type":
            message = f"{path} is a section with keys of its own, got {fault['input']!r}"
        elif fault["type"] == "value_error":
            message = fault["msg"].removeprefix("Value error, ")
        else:
            message = fault["msg"][0].lower() + fault["msg"][1:]
            message = f"{path}: {message}, got {fault['input']!r}"
            if fault["type"] == "literal_error" and isinstance(fault["input"], str):
                allowed = re.findall(r"'([^']+)'", fault["ctx"]["expected"])  # pyright: ignore[reportTypedDictNotRequiredAccess]
                message += did_you_mean(fault["input"], allowed)
        found.append(Fault(path, message))
    return found


def _is_range(value: Any) -> bool:
    """Whether a value is what `etude search` takes in its place; see `search.ranges`."""
    return isinstance(value, dict) and bool({"low", "high", "choices"} & cast("Any", value).keys())
