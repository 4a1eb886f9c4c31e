"""Where Etude keeps what it fetches: one folder, `ETUDE_HOME` or the user's data folder."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def home() -> Path:
    """Return Etude's data folder; it may not exist yet."""
    chosen = os.environ.get("ETUDE_HOME")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_data_dir("etude"))


def models_folder() -> Path:
    """Return the folder that pulled models are unpacked into, one folder a model."""
    return home() / "models"
