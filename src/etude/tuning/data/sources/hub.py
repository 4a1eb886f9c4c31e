"""`data.kind: hub`: data sets of the Hugging Face hub, or a local folder that holds one."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

from etude.core.errors import DataError
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.sources.arrow_nulls import without_padding
from etude.tuning.data.sources.class_names import named as class_named
from etude.tuning.data.sources.class_names import names_in_features
from etude.tuning.data.sources.registry import (
    Row,
    RowSource,
    SourceRow,
    SourceRows,
    UnreadableRow,
    register_source,
)


def hub_rows(name: str, config: str | None, split: str) -> Iterator[SourceRow]:
    """Return the rows of one split of a data set.

    Raises:
        DataError: `datasets` is not installed, the hub cannot be reached, or it knows no such
            data set, configuration or split.
    """
    try:
        library: Any = import_module("datasets")
    except ImportError:
        raise DataError(
            f"the data set {name!r} needs the package 'datasets': pip install datasets"
        ) from None
    library.disable_progress_bars()
    try:
        table: Any = library.load_dataset(name, config, split=split)
    # The library lets errors of every layer through: requests', the hub's, its own, OSError.
    except Exception as error:
        raise DataError(
            f"cannot load the data set {name!r} (split {split!r}): {_reason(error)}; check the "
            "name, or the connection to the hub"
        ) from None
    return _table_rows(name, table)


def _table_rows(name: str, table: Any) -> Iterator[SourceRow]:
    number = 0
    names = names_in_features(table.features.to_dict())
    while number < len(table):
        rest = table if number == 0 else table.skip(number)
        try:
            for values in rest:
                number += 1
                yield Row(f"{name}:{number}", class_named(without_padding(values), names))
        except GeneratorExit:
            raise
        # A column is decoded as its row is read, by a library of images or sound.
        except Exception as error:
            number += 1
            origin = f"{name}:{number}"
            yield UnreadableRow(origin, f"{origin} cannot be read: {_reason(error)}")


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _rows(spec: DataSpec) -> SourceRows:
    if not isinstance(spec.train, str):
        raise DataError(
            "data.train is missing: a data set's id"
            if spec.train is None
            else "data.kind: hub takes one data set; several files need data.kind: files"
        )
    name = spec.train
    return SourceRows(
        hub_rows(name, spec.config, spec.train_split),
        hub_rows(name, spec.config, spec.eval_split) if spec.eval_split else None,
    )


register_source(RowSource("hub", _rows))
