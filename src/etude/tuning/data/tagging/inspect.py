"""Token-level inspection of tagged words: first pieces are trained, the others are read."""

from __future__ import annotations

from typing import Any

from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.inspect import Inspection, Look, pieces
from etude.tuning.data.schema import DataSplit
from etude.tuning.data.tagging.encoding import WordCounts, WordEncoder
from etude.tuning.data.tagging.schemes import entities, labels_of
from etude.tuning.data.tagging.survey import (
    data_scheme,
    entity_types,
    survey,
    trained_scheme,
    word_notes,
)


def inspect_tagged(tokenizer: Any, spec: DataSpec, split: DataSplit, rows: int) -> Inspection:
    """Inspect the first `rows` training sentences, and count all sentences.

    Raises:
        DataError: the tags are no tags, or a tokenizer cannot tell the pieces of words.
    """
    notes = survey(split, spec)
    scheme = data_scheme(split.train)
    labels = labels_of(entity_types(split.train, scheme), trained_scheme(spec, scheme))
    encoder = WordEncoder(tokenizer, spec, spec.max_length, labels)
    counts, held_counts = WordCounts(), WordCounts()
    train = encoder.encode_all(split.train, scheme, counts)
    held_out = encoder.encode_all(split.eval, data_scheme(split.eval, scheme), held_counts)
    looks: list[Look] = []
    shown: set[int] = set()
    for window, source in zip(train.samples, train.sources, strict=True):
        assert window.words is not None
        shown.add(window.words.sentence)
        if len(shown) > rows:
            break
        found = ", ".join(
            f"{' '.join(source.words[e.start : e.end])} ({e.type})"
            for e in entities(source.tags, scheme)
        )
        looks.append(Look(window.origin, pieces(window, tokenizer), f"entities: {found or 'none'}"))
    notes += word_notes("training", counts, encoder.room)
    notes += word_notes("evaluation", held_counts, encoder.room)
    return Inspection(looks, train.stats, held_out.stats, [*notes, *split.notes])
