"""Samples of rows with the path of an image and a label."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from etude.core.errors import DataError
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.columns import field_reader
from etude.tuning.data.counts import Tally
from etude.tuning.data.labels import read_label
from etude.tuning.data.schema import Sample
from etude.tuning.data.sources.files import labels_of
from etude.tuning.data.sources.image_folder import OUTSIDE
from etude.tuning.data.sources.registry import Row
from etude.tuning.images.decode import UnreadableImageError, decode

MOST_DAMAGED = 0.1
"""Share of images that may be damaged and left out; of more, something is wrong with all."""
FEW = 3
"""Damaged images that are left out whatever their share."""


@dataclass
class ImageReader:
    """Reads the samples of rows; decodes each image once, so that what is damaged is known early.

    A sample's text is the SHA-256 of its file: equal images count as equal samples.
    """

    spec: DataSpec
    rows: int = 0
    animated: Tally = field(default_factory=Tally)
    no_images: Tally = field(default_factory=Tally)
    damaged: Tally = field(default_factory=Tally)
    complaints: list[str] = field(default_factory=list[str])
    """What is wrong with the first damaged images."""

    def factory(self, spec: DataSpec, first: Row) -> Callable[[Row], Sample]:
        """Return the function from rows to samples, as `readers.reader_of` does."""
        del first
        path_of = field_reader(spec.image, "data.image")
        folders = _folders(spec)

        def read(row: Row) -> Sample:
            self.rows += 1
            try:
                path = _found(path_of(row), row.origin, folders)
                name = row.origin if path.name in row.origin else f"{row.origin} ({path})"
                decoded = decode(path, name)
                if OUTSIDE in row.values:
                    raise UnreadableImageError(
                        f"{row.origin} is in no folder of a class", damaged=False
                    )
            except UnreadableImageError as error:
                (self.damaged if error.damaged else self.no_images).add(row.origin)
                if error.damaged and len(self.complaints) < FEW:
                    self.complaints.append(str(error))
                raise
            if decoded.frames > 1:
                self.animated.add(row.origin)
            label = read_label(row, spec)
            return Sample((), decoded.digest, row.origin, label=label, image=str(path))

        return read

    def notes(self) -> list[str]:
        """Return what was left out, in lines for the report.

        Raises:
            DataError: too many images are damaged.
        """
        if self.damaged.count > max(FEW, MOST_DAMAGED * self.rows):
            raise DataError(
                f"{self.damaged.count:,} of {self.rows:,} images cannot be read: "
                f"{'; '.join(self.complaints)}; remove or replace them ({self.damaged})"
            )
        notes: list[str] = []
        if self.damaged.count:
            notes.append(f"left out, cannot be read: {self.damaged}; {'; '.join(self.complaints)}")
        if self.no_images.count:
            notes.append(f"left out, no image of a class: {self.no_images}")
        if self.animated.count:
            notes.append(f"animated, of which the first frame is used: {self.animated}")
        return notes


def image_reader(spec: DataSpec, first: Row) -> Callable[[Row], Sample]:
    """Return a function that reads image and label of a row."""
    return ImageReader(spec).factory(spec, first)


def _folders(spec: DataSpec) -> dict[str, list[Path]]:
    """Return the folders of the files whose rows are named so."""
    found: defaultdict[str, list[Path]] = defaultdict(list)
    for files in (spec.train_files, spec.eval_files):
        for file, label in zip(files, labels_of(files), strict=True):
            folder = Path(file.first).expanduser().absolute().parent
            if folder not in found[label]:
                found[label].append(folder)
    return found


def _found(stated: str, origin: str, folders: dict[str, list[Path]]) -> Path:
    """Return the path of an image, relative to the file that names it.

    Raises:
        DataError: it is there in the folders of two files of one name.
    """
    path = Path(stated).expanduser()
    if path.is_absolute():
        return path
    places = [folder / path for folder in folders.get(origin.rpartition(":")[0], [])]
    there = [place for place in places if place.exists()]
    if len(there) > 1:
        raise DataError(
            f"{origin}: {stated} is in the folders of two data files of one name; give whole paths"
        )
    return (there or places or [path.absolute()])[0]
