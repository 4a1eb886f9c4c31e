"""Token-level inspection of texts that are read whole: of classes, labels, numbers and pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.counts import Counts, EncodingStats, Tally
from etude.tuning.data.encode import TOO_LONG
from etude.tuning.data.inspect import Inspection, Look, pieces
from etude.tuning.data.labels import labels_of
from etude.tuning.data.schema import DataSplit, Sample
from etude.tuning.tasks.text_encoder import TextEncoder, encoded_text


def inspect_texts(tokenizer: Any, spec: DataSpec, split: DataSplit, rows: int) -> Inspection:
    """Inspect the first `rows` training samples, and count all samples.

    Args:
        tokenizer: of the model.
        spec: the data section.
        split: texts with a label, a second text, a positive or a negative.
        rows: samples to show; each text of a sample is one look.
    """
    encoder = TextEncoder(tokenizer, spec, ())
    looks = [look for sample in split.train[:rows] for look in _looks(encoder, sample)]
    sides = (_stats(encoder, split.train), _stats(encoder, split.eval))
    return Inspection(looks, *sides, list(split.notes))


def _looks(encoder: TextEncoder, sample: Sample) -> list[Look]:
    limit = encoder.spec.max_length
    found: list[Look] = []
    label = f"label: {', '.join(labels_of(sample))}" if sample.label is not None else None
    texts = {"": sample.text, "positive": sample.positive, "negative": sample.negative}
    for name, text in texts.items():
        if text is None:
            continue
        pairs = None if sample.pair is None else [sample.pair]
        tokens = encoder.tokens([text], pairs)[0]
        whole = encoded_text(tokens, sample.origin)
        dropped = np.zeros(len(whole), dtype=np.bool_)
        notes = [label] if label else []
        if len(whole) > limit:
            what = {"drop": "dropped", "error": "a run would stop here"}
            notes.append(
                f"{len(whole):,} tokens, over data.max_length ({limit:,}): "
                f"{what.get(encoder.spec.too_long, 'truncated')}"
            )
            dropped[limit if encoder.spec.too_long == "cut_prompt" else 0 :] = True
        origin = f"{sample.origin} ({name})" if name else sample.origin
        shown = pieces(whole, encoder.tokenizer, dropped)
        found.append(Look(origin, shown, "; ".join(notes) or None))
    return found


def _stats(encoder: TextEncoder, samples: Sequence[Sample]) -> EncodingStats:
    """Count the tokens of samples, and those that are dropped or truncated."""
    counts = Counts()
    limit, too_long = encoder.spec.max_length, encoder.spec.too_long
    for sample in samples:
        texts = [t for t in (sample.text, sample.positive, sample.negative) if t is not None]
        if sample.pair is None:
            lengths = [len(ids) for ids in encoder.token_ids(texts)]
        else:
            lengths = [len(encoder.tokens(texts, [sample.pair])[0].ids)]
        if max(lengths) > limit and too_long != "cut_prompt":
            counts.dropped.setdefault(TOO_LONG, Tally()).add(sample.origin)
            continue
        if max(lengths) > limit:
            counts.cut.add(sample.origin)
        counts.add([min(length, limit) for length in lengths], 1, None)
    return counts.stats()
