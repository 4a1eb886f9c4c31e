"""What makes samples of rows, by task."""

from __future__ import annotations

from etude.tuning.data.formats.registry import sample_reader
from etude.tuning.data.image_rows import image_reader
from etude.tuning.data.labelled import labelled_reader
from etude.tuning.data.samples import ReaderFactory
from etude.tuning.data.tagging.reading import tagged_reader
from etude.tuning.data.text_pairs import pair_reader

_READERS: dict[str, ReaderFactory] = {
    "text-classification": labelled_reader,
    "image-classification": image_reader,
    "token-classification": tagged_reader,
    "embedding": pair_reader,
    "reranking": pair_reader,
}


def reader_of(task: str) -> ReaderFactory:
    """Return what makes samples of the rows of a task."""
    return _READERS.get(task, sample_reader)
