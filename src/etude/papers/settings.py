"""Settings of papers: categories, shelves and sources, from `papers.yaml` in Etude's data folder.

All keys have defaults. An unknown key or category is an error, since a shelf that stays empty for
months would look like a quiet field.

`ETUDE_ARXIV` replaces arXiv's three servers by one, for example a fake server on this machine.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast
from urllib.parse import urlsplit

import yaml

from etude.core.errors import PapersError, did_you_mean
from etude.core.paths import home
from etude.core.version import __version__
from etude.papers.categories import CATEGORIES

FILE = "papers.yaml"
PAUSE = 3.0
"""Seconds from the end of one answer to the next request; arXiv's terms of use ask for them."""
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_EMPTY: Mapping[str, Any] = MappingProxyType({})


def _default_shelves() -> dict[str, tuple[str, ...]]:
    return {
        "vision": ("cs.CV",),
        "language": ("cs.CL",),
        "learning": ("cs.LG", "stat.ML", "cs.AI"),
    }


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of papers; `read` validates them.

    Raises:
        PapersError: a value is invalid; the message names it.
    """

    categories: tuple[str, ...] = ("cs.CV", "cs.CL", "cs.LG", "stat.ML", "cs.AI")
    """arXiv categories to collect."""
    shelves: Mapping[str, tuple[str, ...]] = field(default_factory=_default_shelves)
    """Names of shelves, with their categories."""
    contact: str = ""
    """An e-mail or web address for the User-Agent, so that arXiv can write before it blocks."""
    query: str = "https://export.arxiv.org/api/query"
    oai: str = "https://oaipmh.arxiv.org/oai"
    feeds: str = "https://rss.arxiv.org"
    """Base URL of `rss/` and `atom/`."""
    feed_format: str = "rss"
    """`rss` or `atom`; both have the same content."""
    oai_format: str = "arXivRaw"
    """`arXivRaw` includes versions and withdrawals, `arXiv` splits the authors' names."""
    pause: float = PAUSE
    """Seconds between requests; below three only for a server on this machine."""
    tries: int = 5
    """Number of attempts per request before its source counts as down."""
    timeout: float = 60.0
    """Timeout of a response in seconds, from the first to the last byte."""
    patience: float = 600.0
    """Maximum seconds that a sync waits for one request; a longer cool-down ends it."""
    first_days: int = 7
    """Number of days that the first sync reads."""
    mail: Mapping[str, Any] = field(default_factory=lambda: _EMPTY)
    """Mail settings, see `etude.papers.mail`."""

    def __post_init__(self) -> None:
        if not self.categories:
            raise PapersError("no categories: name at least one, for example cs.CV")
        for category in (*self.categories, *(name for of in self.shelves.values() for name in of)):
            if category not in CATEGORIES:
                meant = [name for name in CATEGORIES if name.lower() == category.lower()]
                hint = did_you_mean(category, meant or CATEGORIES)
                raise PapersError(f"unknown arXiv category {category!r}{hint}")
        for shelf, wanted in self.shelves.items():
            if not shelf or not shelf.replace("-", "").isalnum():
                raise PapersError(f"shelf {shelf!r}: use letters, digits and hyphens only")
            missing = [name for name in wanted if name not in self.categories]
            if missing and len(missing) == len(wanted):
                raise PapersError(
                    f"shelf {shelf!r} would stay empty: none of {', '.join(wanted)} is among the "
                    "categories collected"
                )
        for name in ("query", "oai", "feeds"):
            parts = urlsplit(str(getattr(self, name)))
            if parts.scheme not in {"http", "https"} or not parts.hostname:
                raise PapersError(f"{name}: {getattr(self, name)!r} is not an http URL")
            if self.pause < PAUSE and parts.hostname not in _LOOPBACK:
                raise PapersError(
                    f"pause: {self.pause:g} s is below the {PAUSE:g} s that arXiv's terms of use "
                    f"ask for, and {parts.hostname} is not this machine"
                )
        for name, known in (
            ("feed_format", ("rss", "atom")),
            ("oai_format", ("arXivRaw", "arXiv")),
        ):
            if getattr(self, name) not in known:
                raise PapersError(f"{name}: {getattr(self, name)!r} is not in {', '.join(known)}")
        for name, least in (("pause", 0), ("tries", 1), ("timeout", 1), ("patience", 0)):
            if not least <= getattr(self, name) < float("inf"):
                raise PapersError(f"{name}: {getattr(self, name)} is below {least}")
        if not 1 <= self.first_days <= 365:
            raise PapersError(f"first_days: {self.first_days} is not within 1 to 365")
        if any(ord(letter) < 32 or ord(letter) > 126 for letter in self.contact):
            raise PapersError("contact: expected an e-mail or web address in ASCII")

    @classmethod
    def read(cls, path: Path | None = None) -> Settings:
        """Read settings from `path`, or from `papers.yaml` in Etude's data folder if it exists.

        Raises:
            PapersError: the file is unreadable, or a key or value is invalid.
        """
        file = path or home() / FILE
        values: dict[str, Any] = {}
        try:
            found: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            if path is not None:
                raise PapersError(f"{path} does not exist") from error
            found = None
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            first = str(error).strip().splitlines()[0]
            raise PapersError(f"{file}: cannot be read: {first}") from error
        if found is not None and not isinstance(found, dict):
            raise PapersError(f"{file}: expected keys and values, found {type(found).__name__}")
        kinds = {entry.name: entry.type for entry in fields(cls)}
        for key, value in cast("dict[Any, Any]", found or {}).items():
            if key not in kinds:
                raise PapersError(f"{file}: unknown key {key!r}{did_you_mean(str(key), kinds)}")
            values[key] = _converted(file, str(key), value, str(kinds[key]))
        server = os.environ.get("ETUDE_ARXIV", "").rstrip("/")
        if server:
            values |= {
                "query": f"{server}/api/query",
                "oai": f"{server}/oai",
                "feeds": server,
            }
            if "pause" not in values and urlsplit(server).hostname in _LOOPBACK:
                values["pause"] = 0.0
        if "categories" in values and "shelves" not in values:
            values["shelves"] = _kept(_default_shelves(), values["categories"])
        try:
            return cls(**values)
        except PapersError as error:
            raise PapersError(f"{file}: {error}") from error

    def at(self, server: str, **changes: Any) -> Settings:
        """Return these settings with the three interfaces at `server`, the URL of a fake server."""
        server = server.rstrip("/")
        return replace(
            self,
            **{
                "query": f"{server}/api/query",
                "oai": f"{server}/oai",
                "feeds": server,
                "pause": 0.0,
                **changes,
            },
        )

    def shelf_of(self, categories: Sequence[str]) -> list[str]:
        """Return the names of the shelves of a paper of `categories`."""
        return [name for name, wanted in self.shelves.items() if set(wanted) & set(categories)]

    @property
    def agent(self) -> str:
        """Return the User-Agent header."""
        about = "https://github.com/etude-ml/etude"
        return f"etude/{__version__} ({'; '.join(part for part in (about, self.contact) if part)})"


def _kept(
    shelves: dict[str, tuple[str, ...]], categories: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """Return the default shelves of `categories`; those on none of them are on `other`."""
    kept = {name: of for name, of in shelves.items() if set(of) & set(categories)}
    rest = tuple(name for name in categories if not any(name in of for of in kept.values()))
    return {**kept, **({"other": rest} if rest else {})}


def _converted(file: Path, key: str, value: Any, kind: str) -> Any:
    wrong = PapersError(f"{file}: {key}: invalid value {value!r}")
    if key == "categories":
        return _names(value, wrong)
    if key == "shelves":
        if not isinstance(value, dict):
            raise wrong
        return {str(name): _names(of, wrong) for name, of in cast("dict[Any, Any]", value).items()}
    if key == "mail":
        if not isinstance(value, dict):
            raise wrong
        return cast("dict[str, Any]", value)
    if kind == "str":
        if not isinstance(value, str):
            raise wrong
        return value.rstrip("/") if key in {"query", "oai", "feeds"} else value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong
    if kind == "int":
        if value != int(value):
            raise wrong
        return int(value)
    return float(value)


def _names(value: Any, wrong: PapersError) -> tuple[str, ...]:
    items = value.split() if isinstance(value, str) else value
    if not isinstance(items, list) or not all(
        isinstance(item, str) for item in cast("list[Any]", items)
    ):
        raise wrong
    return tuple(dict.fromkeys(cast("list[str]", items)))
