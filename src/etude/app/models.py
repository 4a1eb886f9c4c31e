"""Models on this machine: those with an alias, pulled or not, and the room they take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from etude.tuning.models.catalog import CatalogModel


@dataclass(frozen=True)
class ListedModel:
    """A model with an alias."""

    model: CatalogModel
    pulled: bool
    bytes: int
    """On this disk if pulled, otherwise what pulling would take."""


@dataclass(frozen=True)
class ModelShelf:
    """What is here."""

    models: list[ListedModel]
    """Those pulled first."""
    folder: Path
    bytes: int
    """All that is in the folder."""
    free: int
    """Bytes free on its disk."""


def list_models() -> ModelShelf:
    """Return the models of the catalogue, those on this machine first."""
    import shutil

    from etude.core.paths import models_folder
    from etude.tuning.models.catalog import CATALOG

    folder = models_folder()
    models = [
        ListedModel(model, pulled, _size(model.folder) if pulled else model.unpacked_bytes)
        for model in CATALOG.values()
        for pulled in (model.is_pulled(),)
    ]
    models.sort(key=lambda one: not one.pulled)
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return ModelShelf(models, folder, _size(folder), shutil.disk_usage(there).free)


def _size(folder: Path) -> int:
    return sum(file.lstat().st_size for file in folder.resolve().rglob("*") if not file.is_dir())
