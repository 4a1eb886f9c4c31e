"""Names of data files: one path, several, or two files of aligned lines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self, cast

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from etude.tuning.config.sections.base import Section


class NamedFile(Section):
    """One of several data files, or two text files of aligned lines."""

    path: str | None = None
    """The file."""

    prompts: str | None = None
    """Text file with a prompt a line; needs `completions`."""

    completions: str | None = None
    """Text file whose line n answers line n of `prompts`."""

    weight: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] | None = None
    """Share of the training samples, relative to the weights of the other files."""

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        if (self.path is None) == (self.prompts is None or self.completions is None):
            raise ValueError("a data file is {path}, or {prompts, completions}")
        if self.path is not None and (self.prompts or self.completions):
            raise ValueError("a data file is {path}, or {prompts, completions}, not both")
        return self

    @property
    def first(self) -> str:
        """The file that rows are named by."""
        return self.path or self.prompts or ""

    @property
    def paths(self) -> list[str]:
        """All files of it."""
        return [path for path in (self.path, self.prompts, self.completions) if path is not None]


def _form(value: Any) -> str:
    """Return which form of naming files a value has."""
    return "files" if isinstance(value, list) else "file"


def _as_list(value: Any) -> Any:
    """Return several files as a list of objects; one file as it is."""
    if isinstance(value, (dict, NamedFile)):
        value = [value]
    if not isinstance(value, list):
        return value
    entries = cast("list[Any]", value)
    if not entries:
        raise ValueError("an empty list names no data file")
    return [{"path": entry} if isinstance(entry, str) else entry for entry in entries]


Files = Annotated[
    Annotated[str, Tag("file")] | Annotated[list[NamedFile], Tag("files")],
    Discriminator(_form),
    BeforeValidator(_as_list, json_schema_input_type=str | NamedFile | list[str | NamedFile]),
]
"""One file, or several."""


def place(path: str) -> Path:
    """Return where a path leads, whichever way it is written."""
    try:
        return Path(path).expanduser().resolve()
    except (OSError, ValueError, RuntimeError):
        return Path(path)  # no path, or nobody's home: whoever opens it says so


def listed(files: str | list[NamedFile] | None) -> list[NamedFile]:
    """Return the files that are named; none if that is nothing."""
    if files is None:
        return []
    return [NamedFile(path=files)] if isinstance(files, str) else files
