"""A search as a form: which keys of a recipe are varied, in which ranges, and for how long.

The form's YAML is the space that is searched; the command does the same from a terminal. What the
form suggests are the ranges of `tuning.search.priors`, and further ones that are not ticked.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from etude.core.errors import RecipeError

if TYPE_CHECKING:
    from etude.tuning.config.recipe import Recipe
    from etude.tuning.search.ranges import Range
    from etude.tuning.search.space import Space

ORIGIN = "the form"
LABELS = {"train.lr": "learning rate", "train.lr_scheduler": "schedule"}
"""Of keys whose last part says too little."""
WHOLE = ""
"""Key of what is wrong with the search as a whole."""

Typed = Mapping[str, Sequence[str]]
"""What was typed: the values of each field, by its name."""


@dataclass(frozen=True)
class RangeField:
    """A key that can be varied, as it was typed."""

    key: str
    label: str
    help: str
    own: str
    """The recipe's value, which trial 0 has."""
    varied: bool
    choices: str
    """Values with commas between them; empty for a range of numbers."""
    low: str = ""
    high: str = ""
    log: bool = False
    listed: bool = False
    """Whether it is a list of choices."""
    error: str = ""


@dataclass(frozen=True)
class SearchForm:
    """A search to be looked at, changed and started."""

    ranges: list[RangeField]
    trials: str
    minutes: str
    against: tuple[str, ...]
    errors: dict[str, str] = field(default_factory=dict[str, str])
    """What is wrong, by key, or name of a field; `WHOLE` for the rest."""
    yaml: str = ""
    """The space; empty where something is wrong."""
    command: str = ""
    space: Space | None = None


def read_search_form(recipe: Recipe, typed: Typed | None = None) -> SearchForm:
    """Return a search around a recipe as a form, with all that is wrong beside its field.

    Args:
        recipe: that is varied; it names its data.
        typed: `vary` lists the keys that are varied; `low.KEY`, `high.KEY`, `log.KEY` and
            `choices.KEY` their ranges; `trials`, `minutes` and `against` how it is searched.
            None: as suggested.
    """
    from etude.tuning.search.settings import SearchSettings

    suggested = list(_suggested(recipe))
    if typed is None:
        ranges = [_shown(recipe, one, varied=varied) for one, varied in suggested]
        form = SearchForm(ranges, str(SearchSettings().trials), "", ())
    else:
        form = SearchForm(
            [_typed_range(recipe, one, typed) for one, _ in suggested],
            _one(typed, "trials"),
            _one(typed, "minutes"),
            tuple(typed.get("against", ())),
        )
    return _checked(recipe, form)


def _suggested(recipe: Recipe) -> Iterator[tuple[Range, bool]]:
    """Yield ranges, and whether they are varied unless somebody says otherwise."""
    from etude.tuning.search.priors import prior_ranges
    from etude.tuning.search.ranges import Range

    for one in prior_ranges(recipe):
        yield one, True
    train, adapter = recipe.train, recipe.adapter
    if adapter.kind in ("lora", "dora", "adalora"):
        alpha = adapter.alpha
        yield Range("adapter.alpha", choices=(alpha / 2, alpha, 2 * alpha)), False
        high = max(0.2, adapter.dropout)
        yield Range("adapter.dropout", 0.0, high), False
    if train.max_steps is None:
        yield Range("train.epochs", train.epochs / 2, 2 * train.epochs), False
    schedules = dict.fromkeys((train.lr_scheduler, "linear", "cosine", "constant"))
    yield Range("train.lr_scheduler", choices=tuple(schedules)), False


def _one(typed: Typed, name: str) -> str:
    return next(iter(typed.get(name, ())), "").strip()


def _shown(recipe: Recipe, one: Range, *, varied: bool) -> RangeField:
    from etude.tuning.config import reference

    key = next(key for key in reference.keys(type(recipe)) if key.name == one.key)
    return RangeField(
        one.key,
        LABELS.get(one.key, one.key.rpartition(".")[2].replace("_", " ")),
        key.meaning,
        reference.as_yaml(_own(recipe, one.key)),
        varied,
        ", ".join(map(_plain, one.choices)),
        "" if one.low is None else _plain(one.low),
        "" if one.high is None else _plain(one.high),
        one.log,
        bool(one.choices),
    )


def _plain(value: Any) -> str:
    from etude.tuning.config import reference

    return f"{value:g}" if isinstance(value, float) else reference.as_yaml(value)


def _own(recipe: Recipe, key: str) -> Any:
    value: Any = recipe
    for part in key.split("."):
        value = getattr(value, part)
    return value


def _typed_range(recipe: Recipe, one: Range, typed: Typed) -> RangeField:
    shown = _shown(recipe, one, varied=one.key in typed.get("vary", ()))
    if f"low.{one.key}" not in typed and f"choices.{one.key}" not in typed:
        return shown
    return replace(
        shown,
        choices=_one(typed, f"choices.{one.key}"),
        low=_one(typed, f"low.{one.key}"),
        high=_one(typed, f"high.{one.key}"),
        log=bool(_one(typed, f"log.{one.key}")),
    )


def _checked(recipe: Recipe, form: SearchForm) -> SearchForm:
    """Return the form with its errors, or with the space that it describes."""
    from etude.tuning.search.space import space_of

    errors: dict[str, str] = {}
    found: dict[str, Range] = {}
    for one in form.ranges:
        if not one.varied:
            continue
        try:
            found[one.key] = _range_of(recipe, one)
        except RecipeError as error:
            errors[one.key] = _without(str(error), f"{one.key}: ")
    settings = _settings(form, errors)
    ranges = [replace(one, error=errors.get(one.key, "")) for one in form.ranges]
    if not any(one.varied for one in form.ranges):
        errors[WHOLE] = "Tick at least one value to vary."
    if errors:
        return replace(form, ranges=ranges, errors=errors)
    text = _space_text(recipe, list(found.values()), settings)
    try:
        space = space_of(_loaded(text), ORIGIN)
    except RecipeError as error:
        reason = str(error).removeprefix(f"{ORIGIN}: ")
        key = next((key for key in found if reason.startswith(key)), WHOLE)
        said = _without(reason, f"{key}: ")
        ranges = [replace(one, error=said) if one.key == key else one for one in ranges]
        return replace(form, ranges=ranges, errors={key: said})
    command = _command(recipe, list(found.values()), settings)
    return replace(form, yaml=text, command=command, space=space)


def _without(said: str, beginning: str) -> str:
    said = said.removeprefix(beginning)
    return f"{said[:1].upper()}{said[1:]}"


def _range_of(recipe: Recipe, one: RangeField) -> Range:
    """Return the range that was typed.

    Raises:
        RecipeError: it is none.
    """
    from etude.tuning.config import reference
    from etude.tuning.search.ranges import read_range

    kind = next(key.kind for key in reference.keys(type(recipe)) if key.name == one.key)
    said: dict[str, Any] = {}
    if one.listed:
        said["choices"] = [_read(part) for part in one.choices.split(",") if part.strip()]
    else:
        said = {"low": _read(one.low), "high": _read(one.high), "log": one.log}
    found = read_range(one.key, said, whole=kind.startswith("whole number"))
    own = _own(recipe, one.key)
    return replace(found, default=own if found.contains(own) else None)


def _read(typed: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(typed)
    except yaml.YAMLError:
        return typed


def _settings(form: SearchForm, errors: dict[str, str]) -> dict[str, Any]:
    """Return the settings that were typed; what is wrong with them goes to `errors`."""
    from etude.tuning.search.settings import SearchSettings

    said: dict[str, Any] = {}
    for name, typed in (("trials", form.trials), ("minutes", form.minutes)):
        if typed:
            said[name] = _read(typed)
        elif name == "trials":
            errors[name] = "How many trials at most?"
    if form.against:
        said["against"] = list(form.against)
    for name, value in said.items():
        try:
            SearchSettings.parse({name: value}, ORIGIN)
        except RecipeError as error:
            errors[name] = _without(str(error), f"{ORIGIN}: search.{name}: ")
    return said


def _space_text(recipe: Recipe, ranges: Sequence[Range], settings: Mapping[str, Any]) -> str:
    """Return the space as YAML: the recipe, with ranges in the place of values."""
    from etude.app.recipe_form import changed_values
    from etude.tuning.config import reference
    from etude.tuning.config.recipe import Recipe

    values = {**changed_values(recipe), **{one.key: _as_json(one) for one in ranges}}
    text = reference.nested(values, Recipe, {})
    lines = [f"  {name}: {reference.as_yaml(value)}" for name, value in settings.items()]
    return "\n".join([text, "search:", *lines]) + "\n"


def _as_json(one: Range) -> dict[str, Any]:
    said = one.as_json()
    if said["default"] is None:
        del said["default"]
    if not said.get("log", True):
        del said["log"]
    return said


def _loaded(text: str) -> dict[str, Any]:
    import yaml

    return cast("dict[str, Any]", yaml.safe_load(text))


def _command(recipe: Recipe, ranges: Sequence[Range], settings: Mapping[str, Any]) -> str:
    """Return the command that searches the same; `space.yaml` is the form's YAML."""
    from etude.app.recipe_form import command_of
    from etude.tuning.config import reference

    words = shlex.split(command_of(recipe))
    if words[2:] == ["recipe.yaml"]:
        return "etude search space.yaml"
    varied = {one.key for one in ranges}
    kept = ["etude", "search"]
    rest = iter(words[2:])
    for word in rest:
        if word != "--set":
            kept.append(word)
        elif (change := next(rest)).partition("=")[0] not in varied:
            kept += [word, change]
    for one in ranges:
        kept += ["--set", f"{one.key}={reference.as_yaml(_as_json(one))}"]
    for name, value in settings.items():
        several = cast("list[Any]", value) if isinstance(value, list) else [value]
        for each in several:
            kept += [f"--{name}", str(each)]
    return shlex.join(kept)
