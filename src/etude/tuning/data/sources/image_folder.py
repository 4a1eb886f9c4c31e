"""A folder of folders of images: the name of a folder is the class of the images in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from etude.core.errors import DataError
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.sources.registry import Row, SourceRow
from etude.tuning.images.decode import SUFFIXES

OUTSIDE = "in no folder of a class"
"""Column of the rows of files that lie beside the folders, not in one."""
_PARTS = {"train", "training", "val", "valid", "validation", "dev", "test", "testing"}
_LOOKED_AT = 10_000
"""Files that are looked at to recognise a folder of images."""


def is_image_folder(path: Path) -> bool:
    """Return whether most of the first files in the folders of `path` are named as images."""
    if not path.is_dir():
        return False
    images = others = 0
    for file in image_files(path):
        if file.suffix.lower() in SUFFIXES:
            images += 1
        else:
            others += 1
        if images + others >= _LOOKED_AT:
            break
    return images > others


def image_files(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder in the order of their paths, without hidden ones."""
    for base, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                yield Path(base) / name


def read_image_folder(folder: Path, spec: DataSpec) -> Iterator[SourceRow]:
    """Yield a row for each file, with its path and its class: the name of its folder in `folder`.

    What is no image is a row as well: whoever decodes it counts and names it.

    Args:
        folder: of the folders.
        spec: gives the names of the columns of path and label.

    Raises:
        DataError: images are not in folders by class, or these are parts of a data set.
    """
    classes = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not classes:
        raise DataError(
            f"{folder} has no folders: put the images of each class into a folder named by it, or "
            "name a CSV file with a column of paths and a column of labels"
        )
    if all(name.lower() in _PARTS for name in classes):
        raise DataError(
            f"the folders of {folder} are parts of the data ({', '.join(classes)}), not classes: "
            "name that for training by --data, and that for evaluation by --eval-data"
        )
    for file in image_files(folder):
        inside = file.relative_to(folder)
        values: dict[str, Any] = {spec.image: str(file.absolute())}
        if len(inside.parts) > 1:
            values[spec.label] = inside.parts[0]
        else:
            values[OUTSIDE] = True
        yield Row(f"{folder.name}/{inside}", values)
