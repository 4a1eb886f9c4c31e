"""Space: a recipe whose values may be ranges, and the recipes that are in it.

A space is read by the recipe's own validation: with each range replaced by its default it is a
recipe, that of trial 0; and each end of a range, and each choice, must be valid by itself. What two
keys together forbid is found trial by trial.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from etude.core.errors import RecipeError, did_you_mean
from etude.tuning.config import reference
from etude.tuning.config.near_keys import suggest
from etude.tuning.config.recipe import Recipe, faults, read_fields
from etude.tuning.search.priors import prior_ranges
from etude.tuning.search.ranges import Range, is_range, read_range
from etude.tuning.search.settings import SearchSettings

_MODEL = "model"


@dataclass(frozen=True)
class Space:
    """Ranges over a recipe."""

    default: Recipe
    """The recipe of trial 0."""
    ranges: tuple[Range, ...]
    """In an order in which every condition follows what it names."""
    settings: SearchSettings
    origin: str
    """The file it was read from."""
    notes: tuple[str, ...] = ()
    """What was decided for the user: default ranges."""

    def fields(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return a trial's recipe as plain data.

        Args:
            values: a value for each range that is searched, by dotted key; a key whose range is
                not searched has the default of all recipes.
        """
        fields = self.default.model_dump(mode="json")
        unset = {key.name: key.default for key in reference.keys(Recipe)}
        for one in self.ranges:
            _set(fields, one.key, values[one.key] if one.key in values else unset[one.key])
        return fields

    def recipe(self, values: Mapping[str, Any], name: str) -> Recipe:
        """Return a trial's recipe, under a name of its own.

        Raises:
            RecipeError: values that exclude each other.
        """
        return Recipe.parse({**self.fields(values), "name": name}, name)

    def default_values(self) -> dict[str, Any]:
        """Return the values of trial 0, of the ranges that its own values leave to search."""
        flat = reference.flatten(self.default.model_dump(mode="json"), Recipe)
        return {one.key: flat[one.key] for one in self.ranges if one.holds(flat)}

    def visible(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return all that conditions look at: the recipe's keys, with the values set so far."""
        flat = reference.flatten(self.default.model_dump(mode="json"), Recipe)
        return {**flat, **values}

    def unset(self, key: str) -> Any:
        """Return the default that all recipes have for a dotted key."""
        return next(one.default for one in reference.keys(Recipe) if one.name == key)

    def as_json(self) -> dict[str, Any]:
        """Return plain data, for search.json; `from_json` reads it."""
        return {
            "recipe": self.default.model_dump(mode="json"),
            "ranges": {one.key: one.as_json() for one in self.ranges},
            "search": self.settings.model_dump(mode="json"),
            "origin": self.origin,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Space:
        """Read what `as_json` returned."""
        kinds = _kinds()
        ranges = [
            read_range(key, value, whole=kinds[key].startswith("whole number"))
            for key, value in content["ranges"].items()
        ]
        return cls(
            Recipe.parse(content["recipe"], content["origin"]),
            tuple(ranges),
            SearchSettings.parse(content["search"], content["origin"]),
            content["origin"],
        )


def read_space(file: Path, overrides: Sequence[str] = (), *, data: str | None = None) -> Space:
    """Read a space: a recipe in YAML with ranges among its values.

    A recipe without ranges is searched over those that the evidence suggests for its method.

    Args:
        file: the YAML file.
        overrides: `dotted.key=value`; the value may be a range.
        data: training data to use instead.

    Raises:
        RecipeError: the space is missing, is not YAML or is invalid; the message names the key, and
            the nearest known key.
    """
    fields = read_fields(file, overrides, data=data)
    return space_of(fields, str(file))


def space_of(fields: dict[str, Any], origin: str) -> Space:
    """Validate plain data as a space.

    Raises:
        RecipeError: it is invalid.
    """
    fields = copy.deepcopy(fields)
    settings = SearchSettings.parse(fields.pop("search", None), origin)
    kinds = _kinds()
    found: list[Range] = []
    for key, value in list(_ranges_in(fields)):
        if key not in kinds:
            raise RecipeError(f"{origin}: unknown key {key!r}{suggest(key, Recipe)}")
        found.append(_read(origin, key, value, kinds[key]))
    unset = {key.name: key.default for key in reference.keys(Recipe)}
    ranges: list[Range] = []
    for one in found:
        own: Any = unset[one.key]
        default = one.default
        if default is None:
            default = own if own is not None and one.contains(own) else one.middle()
        ranges.append(_with_default(one, default))
        _set(fields, one.key, default)
    _check_conditions(origin, ranges)
    ordered = _in_order(origin, ranges)
    notes: list[str] = []
    if not ordered:
        default = Recipe.parse(fields, origin)
        ordered = list(prior_ranges(default))
        listed = "; ".join(f"{one.key} {one.text}" for one in ordered)
        notes.append(f"no ranges in {origin}: searching {listed}")
    for one in ordered:
        if not one.holds({**unset, **_flat(fields)}):
            _set(fields, one.key, unset[one.key])
    default = Recipe.parse(fields, origin)
    _check_ends(origin, fields, ordered)
    return Space(default, tuple(ordered), settings, origin, tuple(notes))


def _check_ends(origin: str, fields: dict[str, Any], ranges: Sequence[Range]) -> None:
    """Refuse a range of which an end, or a choice, is no value of its key."""
    for one in ranges:
        for value in one.ends():
            tried = copy.deepcopy(fields)
            _set(tried, one.key, value)
            for fault in faults(tried):
                # What excludes another key is a corner of the space, skipped when it is met.
                if fault.key == one.key or fault.key.startswith(f"{one.key}."):
                    raise RecipeError(f"{origin}: {fault.message}")


def _check_conditions(origin: str, ranges: Sequence[Range]) -> None:
    known = {key.name: key for key in reference.keys(Recipe)}
    for one in ranges:
        for key, allowed in one.when.items():
            if key not in known:
                raise RecipeError(
                    f"{origin}: {one.key}: when: unknown key {key!r}{suggest(key, Recipe)}"
                )
            choices = known[key].choices
            for value in allowed:
                if choices and value not in choices:
                    near = did_you_mean(str(value), map(str, choices))
                    raise RecipeError(f"{origin}: {one.key}: when: {key} is never {value!r}{near}")


def _in_order(origin: str, ranges: Sequence[Range]) -> list[Range]:
    """Return the ranges such that each follows those that its condition names."""
    left, ordered = {one.key: one for one in ranges}, list[Range]()
    while left:
        ready = [one for one in left.values() if not any(key in left for key in one.when)]
        if not ready:
            raise RecipeError(
                f"{origin}: the conditions of {' and '.join(left)} wait for each other"
            )
        for one in ready:
            ordered.append(one)
            del left[one.key]
    return ordered


def _read(origin: str, key: str, value: Mapping[str, Any], kind: str) -> Range:
    try:
        return read_range(key, value, whole=kind.startswith("whole number"))
    except RecipeError as error:
        raise RecipeError(f"{origin}: {error}") from None


def _with_default(one: Range, default: Any) -> Range:
    return Range(**{**vars(one), "default": default})


def _ranges_in(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (dotted key, range) of nested fields."""
    for name, value in fields.items():
        key = f"{prefix}{name}"
        if is_range(value):
            yield key, value
        elif isinstance(value, dict):
            yield from _ranges_in(cast("dict[str, Any]", value), f"{key}.")


def _kinds() -> dict[str, str]:
    return {key.name: key.kind for key in reference.keys(Recipe)}


def _flat(fields: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, dict):
            flat |= _flat(cast("dict[str, Any]", value), f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _set(fields: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key of nested fields, in place."""
    *path, last = key.split(".")
    for part in path:
        inner: Any = fields.get(part)
        if part == _MODEL and isinstance(inner, str):
            inner = {"id": inner}
        fields[part] = inner = {} if inner is None else inner
        fields = inner
    fields[last] = value
