"""What the tags of a data set say: their scheme, the types of entities, and what is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from etude.core.errors import DataError, did_you_mean
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.counts import Tally
from etude.tuning.data.samples import DataSplit
from etude.tuning.data.schema import Sample
from etude.tuning.data.tagging.encoding import WordCounts
from etude.tuning.data.tagging.schemes import (
    SchemeEvidence,
    SchemeName,
    TrainedScheme,
    entities,
    is_broken,
    parse,
)


def survey(split: DataSplit, spec: DataSpec) -> list[str]:
    """Return notes about the tags of both sides of the data.

    Raises:
        DataError: no training row has an entity, a type occurs in the evaluation data only, or tags
            break their scheme and `data.broken_tags` is `error`.
    """
    scheme = data_scheme(split.train)
    types = entity_types(split.train, scheme)
    if not types:
        raise DataError(
            "every training row has only the tag O, so there is nothing to find; name the "
            "column of the tags (data.tags)"
        )
    held_scheme = data_scheme(split.eval, scheme)
    refuse_unknown(split.eval, held_scheme, types)
    trained = trained_scheme(spec, scheme)
    return [
        f"tags: {scheme}, {len(types)} {'type' if len(types) == 1 else 'types'} of entities "
        f"({', '.join(types)})" + ("" if trained == scheme else f"; trained as {trained}"),
        *broken_notes(split.train, scheme, "training", spec),
        *broken_notes(split.eval, held_scheme, "evaluation", spec),
    ]


def data_scheme(samples: Iterable[Sample], known: SchemeName | None = None) -> SchemeName:
    """Return the scheme of samples' tags.

    Args:
        samples: all of one side of the data.
        known: the scheme of the training data; a small file may not show its own.
    """
    evidence = SchemeEvidence()
    for sample in samples:
        evidence.add(sample.tags, sample.origin)
    # B and I alone are read alike in both, and a few sentences do not tell one from the other.
    if known in ("IOB1", "BIO") and not evidence.plain and evidence.letters <= set("BI"):
        return known
    return evidence.scheme()


def entity_types(samples: Iterable[Sample], scheme: SchemeName) -> list[str]:
    """Return the types of entities, sorted.

    Raises:
        DataError: a tag is none of the scheme; the message names its row.
    """
    found: set[str] = set()
    for sample in samples:
        for place, tag in enumerate(sample.tags, start=1):
            try:
                kind = parse(tag, scheme)[1]
            except DataError as error:
                raise DataError(f"{sample.origin}, word {place}: {error}") from None
            if kind:
                found.add(kind)
    return sorted(found)


def trained_scheme(spec: DataSpec, scheme: SchemeName) -> TrainedScheme:
    """Return the scheme that a model is trained on."""
    if spec.tag_scheme != "auto":
        return spec.tag_scheme
    return "BIOES" if scheme in ("BIOES", "BILOU") else "BIO"


def refuse_unknown(samples: Iterable[Sample], scheme: SchemeName, types: Sequence[str]) -> None:
    """Refuse evaluation data with types of entities that the training data lack.

    Raises:
        DataError: naming the first type and its rows.
    """
    entity_types(samples, scheme)  # that every tag is one
    rows: dict[str, Tally] = {}
    for sample in samples:
        for name in sorted({e.type for e in entities(sample.tags, scheme)} - set(types)):
            rows.setdefault(name, Tally()).add(sample.origin)
    for name, tally in rows.items():
        near = did_you_mean(name, types)
        raise DataError(
            f"the training data have no entities of type {name!r}{near}: {tally} of the evaluation "
            "data; correct these tags, or add training rows with this type"
        )


def broken_notes(
    samples: Iterable[Sample], scheme: SchemeName, side: str, spec: DataSpec
) -> list[str]:
    """Return a note about sequences that break their scheme.

    Raises:
        DataError: there are some, and `data.broken_tags` is `error`.
    """
    broken = Tally()
    for sample in samples:
        if is_broken(sample.tags, scheme):
            broken.add(sample.origin)
    if not broken.count:
        return []
    if spec.broken_tags == "error":
        raise DataError(
            f"{side} sentences whose tags break {scheme}, as I- after O does: {broken}; correct "
            "them, or set data.broken_tags: repair"
        )
    return [f"{side}: sentences whose tags break {scheme}, read as conlleval does: {broken}"]


def word_notes(side: str, counts: WordCounts, room: int) -> list[str]:
    """Return a line for each thing that happened to words on the way to tokens."""
    notes: list[str] = []
    if counts.windowed.count:
        notes.append(
            f"{side}: sentences longer than data.max_length, in {counts.windows:,} windows: "
            f"{counts.windowed}"
        )
    if counts.unread.count:
        notes.append(
            f"{side}: words that the tokenizer reads as nothing, given as unknown: {counts.unread}"
        )
    if counts.cut.count:
        notes.append(f"{side}: words cut to their first {room:,} pieces: {counts.cut}")
    return notes
