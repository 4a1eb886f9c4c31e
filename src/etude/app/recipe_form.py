"""A recipe as a form, as YAML and as a command: three views of one thing.

The YAML text is the recipe. The form shows some of its keys; a changed field changes the text, and
a changed text changes the fields. The command does the same from a terminal.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from etude.core.errors import RecipeError

if TYPE_CHECKING:
    from etude.tuning.config.recipe import Recipe
    from etude.tuning.config.reference import Key

GROUPS: dict[str, tuple[str, ...]] = {
    "Task and model": ("task", "model.id", "name"),
    "Data": (
        "data.train",
        "data.eval",
        "data.eval_fraction",
        "data.format",
        "data.prompt",
        "data.completion",
        "data.text",
        "data.label",
        "data.encoding",
        "data.separator",
    ),
    "What the model sees": (
        "data.max_length",
        "data.too_long",
        "data.trained_turns",
        "data.system",
        "data.packing",
    ),
    "Adapter": (
        "adapter.kind",
        "adapter.rank",
        "adapter.alpha",
        "adapter.dropout",
        "adapter.target_modules",
        "quant.kind",
    ),
    "Training": (
        "train.epochs",
        "train.max_steps",
        "train.max_minutes",
        "train.lr",
        "train.lr_scheduler",
        "train.batch_samples",
        "train.micro_tokens",
        "train.eval_every",
        "train.patience",
        "train.save_every",
        "train.seed",
    ),
    "Evaluation": ("eval.generate", "eval.metrics"),
}
"""Keys that the form shows, by group; every other key is in the YAML."""

WHOLE = ""
"""Key of what is wrong with the recipe as a whole."""


@dataclass(frozen=True)
class Field:
    """One key of the recipe, as a form shows it."""

    key: str
    label: str
    help: str
    value: str
    """As it is typed; empty for null."""
    default: str
    choices: tuple[str, ...]
    """The allowed values, if they can be listed."""
    kind: str
    """`text`, `number`, `choice` or `flag`."""
    error: str = ""


@dataclass(frozen=True)
class RecipeForm:
    """A recipe to be looked at and changed."""

    yaml: str
    """The text, as it was written."""
    groups: dict[str, list[Field]]
    errors: dict[str, str]
    """What is wrong, by key; `WHOLE` for what belongs to no key."""
    command: str
    """That starts the same run from a terminal; empty where the recipe is not valid."""

    @property
    def is_valid(self) -> bool:
        """Whether a run can be started."""
        return not self.errors


def read_form(text: str) -> RecipeForm:
    """Return a recipe's YAML as a form, with everything that is wrong beside its key."""
    from etude.tuning.config import reference
    from etude.tuning.config.recipe import Recipe, faults

    try:
        fields = _load(text)
    except RecipeError as error:
        return RecipeForm(text, _groups({}, {}), {WHOLE: str(error)}, "")
    known = {key.name for key in reference.keys(Recipe)}
    errors: dict[str, str] = {}
    for fault in faults(fields):
        key = _nearest_key(fault.key, fault.message, known)
        errors[key] = "; ".join(filter(None, [errors.get(key), fault.message]))
    command = ""
    if not errors:
        recipe = Recipe.parse(fields)
        try:
            recipe.require_data()
            command = command_of(recipe)
        except RecipeError as error:
            errors["data.train"] = str(error)
    return RecipeForm(text, _groups(fields, errors), errors, command)


def write_form(text: str, values: Mapping[str, str]) -> str:
    """Return the YAML with changed fields.

    A text that is no valid recipe afterwards is returned all the same, to be corrected.

    Args:
        text: YAML of the recipe.
        values: what was typed, by key. A value that is the same as before changes nothing.

    Raises:
        RecipeError: the text is not YAML, or no recipe.
    """
    import yaml

    from etude.tuning.config.recipe import Recipe, apply_override, faults

    fields = _load(text)
    keys = _keys()
    flat = _flat(fields)
    for name, typed in values.items():
        if name not in keys or typed.replace("\r\n", "\n") == _typed(keys[name], flat):
            continue
        apply_override(fields, f"{name}={_as_yaml(keys[name], typed)}")
    if faults(fields):
        return yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)
    return recipe_text(Recipe.parse(fields))


def read_recipe(text: str) -> Recipe:
    """Return the recipe of a YAML text.

    Raises:
        RecipeError: it is not YAML, or not valid.
    """
    from etude.tuning.config.recipe import Recipe

    return Recipe.parse(_load(text))


def recipe_text(recipe: Recipe) -> str:
    """Return a recipe as YAML, without the keys that have their defaults."""
    from etude.tuning.config import reference
    from etude.tuning.config.recipe import Recipe

    return reference.nested(changed_values(recipe), Recipe, {})


def changed_values(recipe: Recipe) -> dict[str, Any]:
    """Return the values of a recipe that are not the defaults, by dotted key; the task always."""
    from etude.tuning.config import reference
    from etude.tuning.config.recipe import Recipe

    values = reference.flatten(recipe.model_dump(mode="json"), Recipe)
    defaults = {name: key.default for name, key in _keys().items()}
    changed = {name: value for name, value in values.items() if value != defaults[name]}
    # The task says what the rest means, whether it is the default or not.
    return {**changed, "task": recipe.task}


def command_of(recipe: Recipe) -> str:
    """Return the command that starts the same run: a shipped recipe, and what differs from it."""
    from etude.tuning.config import reference
    from etude.tuning.config.recipe import Recipe
    from etude.tuning.config.shipped import shipped_recipes

    name = "docstrings" if recipe.data.kind == "docstrings" else recipe.task
    shipped = shipped_recipes()
    words = ["etude", "tune"]
    base: dict[str, Any]
    data = recipe.data.train if isinstance(recipe.data.train, str) else None
    if recipe.data.kind == "docstrings":
        data = recipe.data.packages[0] if len(recipe.data.packages) == 1 else None
    if name in shipped:
        words.append(name)
        start = Recipe.read(shipped[name], data=data)
        base = reference.flatten(start.model_dump(mode="json"), Recipe)
    else:
        return "etude tune recipe.yaml"
    if data is not None:
        words += ["--data", data]
    values = reference.flatten(recipe.model_dump(mode="json"), Recipe)
    for key, value in values.items():
        if value == base[key]:
            continue
        if key == "model.id":
            words += ["--model", str(value)]
        else:
            words += ["--set", f"{key}={reference.as_yaml(value)}"]
    return shlex.join(words)


def _load(text: str) -> dict[str, Any]:
    import yaml

    try:
        loaded: Any = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise RecipeError(f"this is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(loaded, dict):
        raise RecipeError("this is not a recipe: expected keys such as model, data, train")
    fields = cast("dict[str, Any]", loaded)
    if isinstance(fields.get("model"), str):
        fields["model"] = {"id": fields["model"]}
    return fields


def _keys() -> dict[str, Key]:
    from etude.tuning.config import reference
    from etude.tuning.config.recipe import Recipe

    return {key.name: key for key in reference.keys(Recipe)}


def _flat(fields: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested keys as dotted ones, whether they are known or not."""
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        flat[f"{prefix}{name}"] = value
        if isinstance(value, dict):
            flat |= _flat(cast("dict[str, Any]", value), f"{prefix}{name}.")
    return flat


def _groups(fields: dict[str, Any], errors: Mapping[str, str]) -> dict[str, list[Field]]:
    keys, flat = _keys(), _flat(fields)
    return {
        group: [_field(keys[name], flat, errors.get(name, "")) for name in names]
        for group, names in GROUPS.items()
    }


def _field(key: Key, flat: dict[str, Any], error: str) -> Field:
    from etude.tuning.config import reference

    kind = "text"
    if key.choices:
        kind = "choice"
    elif key.kind == "true or false":
        kind = "flag"
    elif key.kind in ("number", "whole number"):
        kind = "number"
    choices = tuple(map(str, key.choices)) or (("true", "false") if kind == "flag" else ())
    return Field(
        key=key.name,
        label=key.name.rpartition(".")[2].replace("_", " "),
        help=key.meaning,
        value=_typed(key, flat),
        default="" if key.default is None else reference.as_yaml(key.default),
        choices=choices,
        kind=kind,
        error=error,
    )


def _typed(key: Key, flat: dict[str, Any]) -> str:
    """Return a value as it would be typed into its field."""
    from etude.tuning.config import reference

    value = flat.get(key.name, key.default)
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(one, str) for one in cast("list[Any]", value)):
        return ", ".join(cast("list[str]", value))
    return reference.as_yaml(value)


def _as_yaml(key: Key, typed: str) -> str:
    """Return what was typed as a value of YAML, by the type of its key."""
    from etude.tuning.config import reference

    text = typed.replace("\r\n", "\n").strip()
    if not text:
        return "null" if key.nullable else reference.as_yaml(key.default)
    several = "list of names" in key.kind and "," in text and text[0] not in "[{("
    if key.kind == "list of names" or several:
        return reference.as_yaml([part.strip() for part in text.split(",") if part.strip()])
    numeric = key.kind in ("number", "whole number", "true or false")
    if numeric or text.startswith(("[", "{path", "{prompts")):
        return text
    return reference.as_yaml(text)


def _nearest_key(path: str, message: str, known: set[str]) -> str:
    """Return the key that a fault belongs to: its own, that above it, or one that it names."""
    parts = path.split(".")
    for end in range(len(parts), 0, -1):
        if ".".join(parts[:end]) in known:
            return ".".join(parts[:end])
    if message.startswith("unknown key"):
        return WHOLE
    named = [word for word in re.findall(r"[a-z_]+(?:\.[a-z_]+)+", message) if word in known]
    return named[0] if named else WHOLE
