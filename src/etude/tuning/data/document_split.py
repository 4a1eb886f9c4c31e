"""Documents of a run: to train on, held out, from outside the domain, and to mix in.

None is evaluated on that is also trained on: documents that are on two sides are left out of the
one to train on, and counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from etude.core.errors import DataError
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.config.sections.named_files import NamedFile
from etude.tuning.data.documents import (
    Documents,
    documents_of,
    read_documents,
    split_single,
    without,
)
from etude.tuning.data.draws import content_key
from etude.tuning.data.samples import split_samples
from etude.tuning.data.schema import DataSplit, Sample
from etude.tuning.data.sources.registry import SOURCES, RowSource


@dataclass(frozen=True)
class DocumentSplit(DataSplit):
    """Documents to train and to evaluate on, and those from outside the domain."""

    general: Sequence[Sample] = ()
    """To measure what is lost outside the domain."""

    replay: Sequence[Sample] = ()
    """To draw general rows from, that are mixed into training."""


def read_split(spec: DataSpec, general_file: str | None, seed: int) -> DocumentSplit:
    """Read documents, and hold out whole ones; of a single document, its end.

    Args:
        spec: names the data, and the general text to mix in.
        general_file: file or folder of text outside the domain.
        seed: of the split.

    Raises:
        DataError: nothing can be read, or a side of the split is empty.
    """
    train, held_out = _sides(spec)
    general = read_named(general_file, spec)
    notes = [*train.notes, *(held_out.notes if held_out else []), *general.notes]
    train = without(
        Documents(train.samples),
        {content_key(sample) for sample in general.samples},
        "to train on that are also in eval.general",
    )
    notes += train.notes
    if not len(train.samples):
        raise DataError("every training document is also in eval.general; name other text there")
    split = _split(train.samples, held_out, spec, seed)
    if not split.eval:
        raise DataError(
            "there are no evaluation documents: name an evaluation file (data.eval), "
            "or hold out a share of the documents (data.eval_fraction)"
        )
    measured = {content_key(sample) for sample in chain(split.eval, general.samples)}
    replay = without(
        read_named(spec.replay.file, spec), measured, "of data.replay that are evaluated on"
    )
    return DocumentSplit(
        split.train,
        split.eval,
        [*notes, *split.notes, *replay.notes],
        general.samples,
        replay.samples,
    )


def _sides(spec: DataSpec) -> tuple[Documents, Documents | None]:
    """Read the training documents, and those of the recipe's own evaluation data."""
    if spec.kind == "files":
        if spec.weighted:
            raise DataError(
                "data.train: weights of files are for conversations; mix general text into "
                "documents by data.replay"
            )
        return read_all(spec.train_files, spec), (
            read_all(spec.eval_files, spec) if spec.eval else None
        )
    source = SOURCES[spec.kind]
    if not isinstance(source, RowSource):
        raise DataError(f"data.kind: {spec.kind} has no documents; use files or hub")
    rows = source.rows(spec)
    train = documents_of(rows.train, spec, f"{spec.train}")
    return train, None if rows.eval is None else documents_of(rows.eval, spec, f"{spec.train}")


def read_all(files: Sequence[NamedFile], spec: DataSpec) -> Documents:
    """Read the documents of one file or folder, or of several.

    Raises:
        DataError: a file is of aligned lines, which are no documents.
    """
    found: list[Documents] = []
    for file in files:
        if file.path is None:
            raise DataError("data.train: {prompts, completions} are for task: chat")
        found.append(read_documents(file.path, spec))
    if len(found) == 1:
        return found[0]
    samples = [sample for documents in found for sample in documents.samples]
    return Documents(samples, [note for documents in found for note in documents.notes])


def read_named(name: str | None, spec: DataSpec) -> Documents:
    """Read the documents of a path that the recipe may leave out: none then."""
    return Documents(()) if name is None else read_documents(name, spec)


def _split(
    train: Sequence[Sample], held_out: Documents | None, spec: DataSpec, seed: int
) -> DataSplit:
    if held_out is not None or len(train) > 1 or not spec.eval_fraction or spec.fold.of:
        evaluation = None if held_out is None else held_out.samples
        return split_samples(train, evaluation, spec, seed)
    parts = split_single(train[0], spec.eval_fraction)
    if parts is None:
        raise DataError(
            f"{train[0].origin}: the only document has no end of a line or word to be split at; "
            "name an evaluation file (data.eval)"
        )
    note = (
        f"there is one document, so its end is held out: from {parts[1].origin} on "
        f"(data.eval_fraction {spec.eval_fraction:g})"
    )
    return DataSplit([parts[0]], [parts[1]], [note])
