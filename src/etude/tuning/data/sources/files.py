"""`data.kind: files`: one file or several. All kinds but a JSON array are read as a stream."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path

from etude.core.errors import DataError, did_you_mean
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.config.sections.named_files import NamedFile
from etude.tuning.data.sources.conll import looks_like_conll, read_conll
from etude.tuning.data.sources.data_file import COMPRESSIONS, DataFile, decompression_errors
from etude.tuning.data.sources.image_folder import is_image_folder, read_image_folder
from etude.tuning.data.sources.line_pairs import paired_rows
from etude.tuning.data.sources.registry import (
    READERS,
    RowSource,
    SourceRow,
    SourceRows,
    UnreadableRow,
    register_source,
)


def read_rows(
    path: str | os.PathLike[str], spec: DataSpec | None = None, label: str | None = None
) -> Iterator[SourceRow]:
    """Return the rows of a file, read by what its name ends in.

    The file is opened and its kind checked at once; rows are read as they are asked for.

    Args:
        path: the file, compressed or not; or a folder of folders of images.
        spec: gives encoding and separator; None: both by the file.
        label: what the rows are named by; None: the file's name.

    Raises:
        DataError: the file is missing, a folder, empty, of an unknown kind, or not what its name
            says; a single row that is damaged comes as an `UnreadableRow`.
    """
    folder = Path(path).expanduser()
    if is_image_folder(folder):
        return read_image_folder(folder, spec or DataSpec())
    file = _existing(path, spec, label)
    reader = READERS.get(file.suffix)
    # A .tsv without a header, or any other ending: words and tags are recognised by content.
    tagged = (reader is None or file.suffix in (".tsv", ".txt")) and looks_like_conll(file)
    if tagged:
        return _guarded(file, partial(read_conll, file, with_text=file.suffix == ".txt"))
    if reader is None:
        inner = f" before {file.compression}" if file.compression else ""
        raise DataError(f"{file}: unknown file type {file.suffix!r}{inner}; known: {_known()}")
    return _guarded(file, lambda: reader.rows(file))


def labels_of(files: Sequence[NamedFile]) -> list[str]:
    """Return what the rows of each file are named by: as much of its path as tells it from others.

    Raises:
        DataError: a file is listed twice.
    """
    paths = [Path(file.first) for file in files]
    whole = Counter(str(path) for path in paths)
    if repeated := [name for name, count in whole.items() if count > 1]:
        raise DataError(f"data.train lists {repeated[0]} twice; give it a weight instead")
    for parts in (1, 2, 3):
        labels = [str(Path(*path.parts[-parts:])) for path in paths]
        if len(set(labels)) == len(labels):
            return labels
    return [str(path) for path in paths]


def _existing(path: str | os.PathLike[str], spec: DataSpec | None, label: str | None) -> DataFile:
    place = Path(path).expanduser()
    if place.is_dir():
        raise DataError(f"{place} is a folder, and not of images; name a file in it ({_known()})")
    if not place.exists():
        near = [entry.name for entry in place.parent.iterdir()] if place.parent.is_dir() else []
        raise DataError(f"no data file at {place}{did_you_mean(place.name, near)}")
    if place.stat().st_size == 0:
        raise DataError(f"{place} is empty")
    if spec is None:
        return DataFile(place, label=label)
    return DataFile(place, spec.encoding, spec.separator, label)


def _known() -> str:
    return f"{', '.join(sorted(READERS))}, and compressed {', '.join(sorted(COMPRESSIONS))}"


def _guarded(file: DataFile, rows: Callable[[], Iterator[SourceRow]]) -> Iterator[SourceRow]:
    """Read rows; turn what the machine complains of into one line that names the file."""
    last = f"{file.name}:0"
    damaged = decompression_errors() if file.compression else ()
    try:
        for row in rows():
            last = row.origin
            yield row
    except UnicodeError as error:
        raise DataError(f"{file} cannot be decoded: {error}; set data.encoding") from None
    except (OSError, *damaged) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        if not file.compression:
            raise DataError(f"cannot read {file}: {reason}") from None
        # What came before is good; what follows cannot be had.
        origin = f"{file.name}:{int(last.rpartition(':')[2]) + 1}"
        yield UnreadableRow(
            origin,
            f"{origin}: nothing from here on can be decompressed: {' '.join(reason.split())}",
        )


def _rows(spec: DataSpec) -> SourceRows:
    if spec.train is None:
        raise DataError("data.train is missing: a file, or a data set's id")
    return SourceRows(
        _all(spec.train_files, spec), None if spec.eval is None else _all(spec.eval_files, spec)
    )


def _all(files: Sequence[NamedFile], spec: DataSpec) -> Iterator[SourceRow]:
    # A list: what is wrong with any of them is said before the first is read.
    streams = [
        _rows_of(file, spec, label) for file, label in zip(files, labels_of(files), strict=True)
    ]
    return chain.from_iterable(streams)


def _rows_of(file: NamedFile, spec: DataSpec, label: str) -> Iterator[SourceRow]:
    if file.path is not None:
        return read_rows(file.path, spec, label)
    prompts = _existing(file.first, spec, label)
    completions = _existing(file.completions or "", spec, None)
    return _guarded(prompts, lambda: paired_rows(prompts, completions))


register_source(RowSource("files", _rows))
