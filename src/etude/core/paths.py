"""Paths of Etude's data folder (`ETUDE_HOME`) and of the files shipped with the package."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def home() -> Path:
    """Return Etude's data folder; it may not exist yet."""
    chosen = os.environ.get("ETUDE_HOME")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_data_dir("etude"))


def models_folder() -> Path:
    """Return the folder that pulled models are unpacked into, one folder per model."""
    return home() / "models"


def shipped_folder(name: str) -> Path:
    """Return a top-level folder of the repository that wheels carry inside the package.

    Args:
        name: of the folder, `recipes` or `content` (`force-include` in pyproject.toml).
    """
    package = Path(__file__).parents[1]
    inside = package / name
    return inside if inside.is_dir() else package.parents[1] / name
