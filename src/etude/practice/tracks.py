"""Tracks: ordered ways through the problems of all collections, of `content/tracks.yaml`."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from etude.core.errors import ProblemError, did_you_mean
from etude.core.paths import shipped_folder


class Step(BaseModel):
    """A problem on the way."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    problem: str = Field(description="its slug")
    why: str = Field(min_length=1, max_length=120, description="what it adds, in a sentence")


class Track(BaseModel):
    """An ordered way through problems."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    title: str = Field(min_length=3, max_length=60)
    about: str
    steps: tuple[Step, ...] = Field(min_length=1)


def load_tracks(file: Path | None = None) -> list[Track]:
    """Read the tracks, in the order of the file.

    Args:
        file: None: those shipped with Etude.

    Raises:
        ProblemError: the file cannot be read, or names a track or a step twice.
    """
    file = file or shipped_folder("content") / "tracks.yaml"
    try:
        return list(_read(file, file.stat().st_mtime_ns))
    except OSError as error:
        raise ProblemError(f"cannot read {file}: {error.strerror}") from None


def find_track(name: str) -> Track:
    """Return a track by its name.

    Raises:
        ProblemError: there is none; near names are suggested.
    """
    tracks = {track.name: track for track in load_tracks()}
    if name not in tracks:
        raise ProblemError(f"there is no track {name!r}{did_you_mean(name, tracks)}")
    return tracks[name]


@lru_cache(maxsize=4)
def _read(file: Path, changed: int) -> tuple[Track, ...]:
    del changed
    try:
        found: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
        tracks = TypeAdapter(tuple[Track, ...]).validate_python(found)
    except yaml.YAMLError as error:
        raise ProblemError(f"{file}: {error}") from None
    except ValidationError as error:
        first: Any = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ProblemError(f"{file}: {where}: {first['msg']}") from None
    names = [track.name for track in tracks]
    for kind, given in [("track", names)] + [
        (f"step of {track.name}", [step.problem for step in track.steps]) for track in tracks
    ]:
        twice = {one for one in given if given.count(one) > 1}
        if twice:
            raise ProblemError(f"{file}: the {kind} {min(twice)!r} is there twice")
    return tracks
