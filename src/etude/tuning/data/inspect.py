"""Token-level inspection of data: each token is trained, context or dropped."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

import numpy as np

from etude.core.errors import DataError
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.account import Account
from etude.tuning.data.counts import EncodingStats
from etude.tuning.data.document_rows import DocumentEncoder
from etude.tuning.data.encode import REASONS, Encoder
from etude.tuning.data.encoded import EncodedSample
from etude.tuning.data.schema import DataSplit, Sample

State = Literal["trained", "context", "dropped"]


@dataclass(frozen=True, slots=True)
class Piece:
    """The text of one token, or of several that form one character."""

    text: str
    state: State
    special: bool = False
    """Whether it is one of the vocabulary's special tokens; a trained one ends an answer."""


@dataclass(frozen=True)
class Look:
    """One sample as a list of pieces."""

    origin: str
    pieces: list[Piece]
    note: str | None
    """Reason why it is dropped or truncated, if so."""


@dataclass(frozen=True)
class Inspection:
    """Result of an inspection."""

    looks: list[Look]
    train: EncodingStats
    eval: EncodingStats
    """Statistics of the held-out samples, if any."""

    notes: list[str]

    fields: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """Columns, keys of messages and turns of the rows: in how many they were read, or were not."""

    refused: str | None = None
    """Why the first of the rows that are no sample is none, and which they are; None: all are."""


def inspect_data(
    tokenizer: Any, spec: DataSpec, split: DataSplit, rows: int, account: Account | None = None
) -> Inspection:
    """Inspect the first `rows` training samples, and count all samples.

    Samples that would stop a run because of their length or missing targets are counted as dropped;
    the notes name them.

    Raises:
        DataError: the template does not support training, or a sample is otherwise unsuitable.
    """
    encoder = Encoder(tokenizer, spec)
    looks = [seen for sample in split.train[:rows] for seen in looks_at(encoder, sample)]
    lenient: dict[str, str] = {"no_trained_tokens": "drop", "template_refused": "drop"}
    if spec.too_long == "error":
        lenient["too_long"] = "drop"
    counting = Encoder(tokenizer, spec.model_copy(update=lenient))
    train = counting.encode_all(split.train, may_be_empty=True).stats
    held_out = counting.encode_all(split.eval, may_be_empty=True).stats
    account = account or Account()
    notes = [*_stoppers(spec, train, held_out), *split.notes]
    return Inspection(looks, train, held_out, notes, account.table(), account.refusal())


def inspect_documents(tokenizer: Any, spec: DataSpec, split: DataSplit, rows: int) -> Inspection:
    """Inspect the first `rows` rows that training documents are cut into, and count all rows."""
    encoder = DocumentEncoder(tokenizer, spec)
    train = encoder.encode_documents(split.train)
    held_out = encoder.encode_documents(split.eval)
    looks = [Look(row.origin, pieces(row, tokenizer), None) for row in train.samples[:rows]]
    return Inspection(looks, train.stats, held_out.stats, split.notes)


def _stoppers(spec: DataSpec, *stats: EncodingStats) -> list[str]:
    """Return notes about dropped samples that would stop a run."""
    keys = {reason: f"data.{key}" for reason, key in REASONS.items()}
    stops = {reason: getattr(spec, key) == "error" for reason, key in REASONS.items()}
    return [
        f"a run would stop at {tally} of these: {reason}; fix them, or set {keys[reason]} to drop"
        for side in stats
        for reason, tally in side.dropped.items()
        if stops[reason]
    ]


def looks_at(encoder: Encoder, sample: Sample) -> list[Look]:
    """Inspect one sample: both sides of a pair, an unpaired preference with its label."""
    names = ("chosen", "rejected") if sample.rejected else ("",)
    if sample.desirable is not None:
        names = ("desirable" if sample.desirable else "undesirable",)
    return [
        replace(seen, origin=f"{seen.origin} ({name})" if name else seen.origin)
        for name, side in zip(names, sample.sides(), strict=True)
        for seen in [look(encoder, side)]
    ]


def look(encoder: Encoder, sample: Sample) -> Look:
    """Inspect one whole conversation or text, including dropped parts."""
    try:
        whole = encoder.encode_uncut(sample)
    except DataError as error:
        text = sample.text or "\n".join(f"{m.role}: {m.content}" for m in sample.messages)
        return Look(
            sample.origin, [Piece(text, "dropped")], str(error).removeprefix(f"{sample.origin}: ")
        )
    limit = encoder.spec.max_length
    if len(whole) <= limit:
        return Look(sample.origin, pieces(whole, encoder.tokenizer), None)
    dropped = np.ones(len(whole), dtype=np.bool_)
    note = f"{len(whole):,} tokens, over data.max_length ({limit:,}): dropped"
    if encoder.spec.too_long == "error":
        note = f"{len(whole):,} tokens, over data.max_length ({limit:,}): a run would stop here"
    if encoder.spec.too_long == "cut_prompt":
        try:
            cut = encoder.encode(sample)
        except DataError:
            note += ", because the answer leaves no room for its prompt"
        else:
            start = _parting(whole, cut)
            dropped[:] = False
            dropped[start : start + len(whole) - len(cut)] = True
            note = f"{len(whole):,} tokens, over data.max_length ({limit:,}): prompt truncated"
    return Look(sample.origin, pieces(whole, encoder.tokenizer, dropped), note)


def _parting(whole: EncodedSample, cut: EncodedSample) -> int:
    """Return the position where a truncated sample differs from the whole one."""
    count = min(len(whole), len(cut))
    differs = np.flatnonzero(whole.input_ids[:count] != cut.input_ids[:count])
    return int(differs[0]) if len(differs) else count


def pieces(
    encoded: EncodedSample, tokenizer: Any, dropped: np.ndarray | None = None
) -> list[Piece]:
    """Split a sample's text at its tokens; joined, the pieces are the whole text.

    Args:
        encoded: the sample, T tokens.
        tokenizer: that it was encoded with.
        dropped: (T,) whether each token is dropped; None: none is.

    Returns:
        One piece per token, or per group of tokens that form one character.
    """
    ids: list[int] = encoded.input_ids.tolist()
    special = set(cast("list[int]", tokenizer.all_special_ids))
    found: list[Piece] = []
    start = 0
    before = ""
    for end in range(1, len(ids) + 1):
        # In some vocabularies preceding tokens decide whether a token begins with a space.
        text = cast("str", tokenizer.decode(ids[max(0, start - 1) : end]))
        # An incomplete character decodes to the replacement character until its last token.
        if text.endswith("\ufffd") and end < len(ids) and end - start < 4:
            continue
        state: State = "trained" if encoded.trained[end - 1] else "context"
        if dropped is not None and dropped[end - 1]:
            state = "dropped"
        found.append(Piece(text.removeprefix(before), state, ids[end - 1] in special))
        start, before = end, cast("str", tokenizer.decode(ids[end - 1 : end]))
    return found


def html_sample(encoded: EncodedSample, tokenizer: Any) -> str:
    """Return a sample as HTML, one span per token, of class trained, context or dropped.

    The text is escaped; the caller provides the style sheet and preserves white space.
    """
    return "\n\n".join(_spans(pieces(side, tokenizer)) for side in encoded.sides)


def inspection_page(inspection: Inspection, title: str) -> str:
    """Return a self-contained HTML page of the inspected samples and the totals."""
    sections = "".join(
        f"<h2>{html.escape(shown.origin)}</h2>"
        + (f"<p>{html.escape(shown.note)}</p>" if shown.note else "")
        + f"<pre>{_spans(shown.pieces)}</pre>"
        for shown in inspection.looks
    )
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"
        for name, value in totals(inspection.train)
    )
    notes = "".join(f"<p>{html.escape(note)}</p>" for note in inspection.notes)
    fields = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(told)}</td></tr>"
        for name, told in inspection.fields
    )
    legend = "&emsp;".join(
        f'<span class="{state}">{state}</span>: {meaning}' for state, meaning in LEGEND.items()
    )
    name = html.escape(title)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{name}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style><h1>{name}</h1><p>{legend}</p>{sections}"
        f"<h2>Totals</h2><table>{rows}</table>{notes}"
        + (f"<h2>Columns and keys</h2><table>{fields}</table>" if fields else "")
        + "</html>\n"
    )


def totals(stats: EncodingStats) -> list[tuple[str, str]]:
    """Return the statistics as (name, value) pairs for display."""
    share = stats.trained_tokens / stats.tokens if stats.tokens else 0.0
    rows = [("samples", f"{stats.samples:,}")]
    if not stats.tokens:
        return rows  # images
    rows += [
        ("tokens", f"{stats.tokens:,}"),
        ("trained tokens", f"{stats.trained_tokens:,} ({share:.1%})"),
        ("longest sample", f"{stats.longest:,} tokens"),
    ]
    if stats.pairs:
        rows.append(("pairs of answers", f"{stats.pairs:,}"))
    if stats.desirable or stats.undesirable:
        rows.append(
            ("desirable answers", f"{stats.desirable:,}, undesirable {stats.undesirable:,}")
        )
    if stats.split.count:
        rows.append(("split into one sample per answer", str(stats.split)))
    rows += [(f"dropped: {reason}", str(tally)) for reason, tally in stats.dropped.items()]
    if stats.cut.count:
        rows.append(("prompt truncated", str(stats.cut)))
    if stats.folded.count:
        rows.append(("system message folded into the user's turn", str(stats.folded)))
    return rows


LEGEND: dict[State, str] = {
    "trained": "the model learns to write it",
    "context": "read, not trained",
    "dropped": "not seen",
}

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; padding: 1rem; border: 1px solid #8886; }
pre span { box-shadow: inset 1px 0 #8888; }
.trained { background: #2a96; border-bottom: 2px solid #2a9; }
.dropped { background: #e524; text-decoration: line-through; }
th { text-align: left; font-weight: normal; padding-right: 2rem; }
"""


def _spans(shown: Sequence[Piece]) -> str:
    return "".join(
        f'<span class="{piece.state}">{html.escape(piece.text)}</span>' for piece in shown
    )
