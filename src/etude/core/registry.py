"""Registries: entries by name, each registered by the module that defines it."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Generic, TypeVar

Entry = TypeVar("Entry")


class Registry(Mapping[str, Entry], Generic[Entry]):
    """A mapping of names to entries.

    Args:
        what: the kind of entry, for messages: `data format`.
        package: a package whose modules register the entries; all of them are imported at the
            first look-up, so that a new module needs no line anywhere else. None if the entries
            are registered by modules that are imported anyway.
    """

    def __init__(self, what: str, package: str | None = None) -> None:
        self._what = what
        self._package = package
        self._entries: dict[str, Entry] = {}

    def register(self, name: str, entry: Entry) -> Entry:
        """Add an entry and return it.

        Raises:
            ValueError: the name is taken.
        """
        if name in self._entries:
            raise ValueError(f"two definitions of the {self._what} {name!r}")
        self._entries[name] = entry
        return entry

    def _complete(self) -> dict[str, Entry]:
        """Return the entries, importing the package's modules the first time."""
        if self._package is not None:
            package, self._package = self._package, None
            try:
                for module in pkgutil.iter_modules(import_module(package).__path__):
                    import_module(f"{package}.{module.name}")
            except BaseException:
                self._package = package
                raise
        return self._entries

    def __getitem__(self, name: str) -> Entry:
        return self._complete()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._complete())

    def __len__(self) -> int:
        return len(self._complete())
