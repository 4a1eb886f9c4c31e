"""Recipe reference: name, type, default and meaning of every key, read from the models.

The meanings are the docstrings under the keys in `sections/`, their single source: the command
line, the reference in docs/, the JSON Schema and the error messages all use them.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

EXAMPLE = """\
name: chat
model: smollm2-135m

data:
  train: conversations.jsonl
  max_length: 512

adapter:
  rank: 16
  alpha: 32

quant:
  kind: nf4

train:
  epochs: 2
  lr: 5.0e-4
"""
"""A complete recipe, shown at the start of the reference."""


@dataclass(frozen=True)
class Key:
    """A key of a recipe."""

    name: str
    """Dotted name, as for `--set`: `adapter.factors.bits`."""

    kind: str
    """The type in words, without its range: `one of nf4, fp4`, `number`, `text`."""

    range: str
    """The allowed numbers: `above 0`, `from 1 to 20`; empty if unlimited."""

    nullable: bool
    """Whether `null` is allowed."""

    default: Any
    """The default, as plain data."""

    meaning: str
    """The docstring of the key, on one line."""

    choices: tuple[Any, ...] = ()
    """The allowed values, if they can be listed."""

    @property
    def words(self) -> str:
        """The type in words: `whole number of at least 1, or null`."""
        said = f"{self.kind} {self.range}".strip()
        return f"{said}, or null" if self.nullable else said


@dataclass(frozen=True)
class Part:
    """A section of the recipe with its own keys, without those of inner sections."""

    name: str
    """Dotted name; empty for the recipe itself."""

    meaning: str
    keys: tuple[Key, ...]


def parts(root: type[BaseModel], name: str = "") -> Iterator[Part]:
    """Yield the recipe's sections in definition order, outer before inner."""
    found: list[Key] = []
    inner: list[tuple[str, type[BaseModel]]] = []
    for key, field in root.model_fields.items():
        dotted = f"{name}.{key}" if name else key
        section = section_of(field)
        if section is None:
            found.append(_key(dotted, field))
        else:
            inner.append((dotted, section))
    yield Part(name, _one_line(root.__doc__), tuple(found))
    for dotted, section in inner:
        yield from parts(section, dotted)


def keys(root: type[BaseModel]) -> list[Key]:
    """Return every key of a recipe."""
    return [key for part in parts(root) for key in part.keys]


def search(root: type[BaseModel], pattern: str) -> list[Key]:
    """Return the keys whose name or meaning contains `pattern`, ignoring case."""
    sought = pattern.casefold()
    return [k for k in keys(root) if sought in f"{k.name}\n{k.meaning}".casefold()]


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """Return the model of a field that is a section, None for a key."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def as_yaml(value: Any) -> str:
    """Return `value` as YAML on one line: `null`, `all-linear`, `[q_proj, v_proj]`."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def flatten(values: dict[str, Any], root: type[BaseModel], name: str = "") -> dict[str, Any]:
    """Return a recipe's nested plain data by dotted key, in the order of `keys`."""
    flat: dict[str, Any] = {}
    inner: dict[str, Any] = {}
    for key, field in root.model_fields.items():
        section = section_of(field)
        dotted = f"{name}.{key}" if name else key
        if section is None:
            flat[dotted] = values[key]
        else:
            inner |= flatten(values[key], section, dotted)
    return flat | inner


def nested(values: dict[str, Any], root: type[BaseModel], notes: dict[str, list[str]]) -> str:
    """Return `values`, by dotted key, as a YAML document.

    Args:
        values: values by key; sections without a value are omitted.
        root: the recipe's model, which defines the order.
        notes: comments by dotted key: the first is put after the value, the others above it.
    """
    lines: list[str] = []
    opened: set[str] = set()
    for part in parts(root):
        written = [key.name for key in part.keys if key.name in values]
        if not written:
            continue
        path = part.name.split(".") if part.name else []
        for depth, name in enumerate(path):
            dotted = ".".join(path[: depth + 1])
            if dotted not in opened:
                opened.add(dotted)
                lines += [] if depth or not lines else [""]
                lines.append(f"{'  ' * depth}{name}:")
        indent = "  " * len(path)
        for key in written:
            behind, *above = notes.get(key, [""])
            lines += [f"{indent}# {line}" for line in above]
            value = f"{indent}{key.rpartition('.')[2]}: {as_yaml(values[key])}"
            lines.append(f"{value}  # {behind}" if behind else value)
    return "\n".join(lines) + "\n"


def json_schema(root: type[BaseModel]) -> dict[str, Any]:
    """Return the recipe's JSON Schema (2020-12), for editors that check YAML while it is typed."""
    schema = root.model_json_schema()
    model = schema["properties"]["model"]
    # A plain string is the model's id, which pydantic's schema does not contain.
    reference = {"$ref": model.pop("$ref")}
    model["anyOf"] = [{"type": "string"}, reference]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def markdown(root: type[BaseModel], example: str) -> str:
    """Return the reference page.

    Args:
        root: the recipe's model.
        example: a complete recipe to show first.
    """
    lines = [
        "# Every key of a recipe",
        "",
        "<!-- Written by `make reference` from the docstrings in tuning/config/sections/. -->",
        "",
        "A recipe is a YAML file. Omitted keys have their defaults, so a complete recipe can be as",
        "short as this:",
        "",
        "```yaml",
        example.rstrip("\n"),
        "```",
        "",
        "`etude recipe check FILE` reports every error, `etude recipe show FILE` prints the recipe",
        "with all defaults, and `etude recipe keys WORD` finds keys by name or meaning. On the",
        "command line `--set adapter.rank=8` changes one key. `etude recipe schema` prints a JSON",
        "Schema for editors.",
    ]
    for part in parts(root):
        lines += ["", f"## {f'`{part.name}`' if part.name else 'The recipe'}", "", part.meaning, ""]
        if not part.keys:
            continue
        lines += ["| key | value | default | meaning |", "|---|---|---|---|"]
        for key in part.keys:
            cells = (f"`{key.name}`", key.words, f"`{as_yaml(key.default)}`", key.meaning)
            lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _key(name: str, field: FieldInfo) -> Key:
    options, nullable = _options(field.annotation)
    limits = list(field.metadata)
    choices = get_args(options[0]) if get_origin(options[0]) is Literal else ()
    return Key(
        name,
        ", or ".join(_kind(option) for option in options),
        _range(limits),
        nullable,
        field.get_default(),
        _one_line(field.description),
        choices,
    )


def _options(annotation: Any) -> tuple[list[Any], bool]:
    """Return the types that a union allows, and whether None is among them."""
    found = list(get_args(annotation)) if _is_union(annotation) else [annotation]
    return [kind for kind in found if kind is not types.NoneType], types.NoneType in found


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, types.UnionType)


def _kind(annotation: Any) -> str:
    """Describe a type in words, including ranges of `Annotated`."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if _is_union(annotation):
        return ", or ".join(_kind(option) for option in inner)
    if metadata := getattr(annotation, "__metadata__", None):
        limits = [limit for info in metadata for limit in getattr(info, "metadata", ())]
        return f"{_kind(inner[0])} {_range(limits)}".strip()
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    if origin is list:
        if isinstance(inner[0], type) and issubclass(inner[0], BaseModel):
            return f"list of {{{', '.join(inner[0].model_fields)}}}"
        return "list of names"
    if origin is dict:
        return f"{_kind(inner[1])} for each name or pattern"
    return {bool: "true or false", int: "whole number", float: "number", str: "text"}[annotation]


def _range(limits: list[Any]) -> str:
    found = {
        sign: getattr(limit, sign)
        for limit in limits
        for sign in ("ge", "gt", "le", "lt")
        if getattr(limit, sign, None) is not None
    }
    low = f"{found['ge']:g}" if "ge" in found else ""
    if low and "le" in found:
        return f"from {low} to {found['le']:g}"
    if low and "lt" in found:
        return f"from {low} to below {found['lt']:g}"
    clauses = {"ge": "of at least", "gt": "above", "le": "of at most", "lt": "below"}
    return " and ".join(f"{clauses[sign]} {value:g}" for sign, value in found.items())


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())
