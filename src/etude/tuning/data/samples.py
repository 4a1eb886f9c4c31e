"""Loading of samples, and the train/evaluation split.

A sample is a conversation (`messages`) or plain text. It carries its origin, so that later error
messages can name a file and a line. The split depends on a sample's content and the seed alone:
identical rows always fall on the same side, and adding rows to a file does not move the
others.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from etude.core.errors import DataError
from etude.tuning.config.sections.data import DataSpec, FoldSpec
from etude.tuning.config.sections.named_files import NamedFile
from etude.tuning.data.account import Account, accounted
from etude.tuning.data.disk_buffer import DiskBuffer
from etude.tuning.data.draws import Draw, MixedDraw, content_key, mixed_draw, unit
from etude.tuning.data.folds import fold_note, held_out_fold
from etude.tuning.data.formats.registry import sample_reader
from etude.tuning.data.schema import DataSplit, Sample
from etude.tuning.data.sources.registry import SOURCES, Row, SourceRow, SplitSource, UnreadableRow
from etude.tuning.images.decode import UnreadableImageError

ReaderFactory = Callable[[DataSpec, Row], Callable[[Row], Sample]]
"""Creates a function from rows to samples, given the settings and the first row."""

Splitter = Callable[[Iterable[Sample], Iterable[Sample] | None, DataSpec, int], DataSplit]
"""Splits a stream of samples, as `split_samples` does."""


def load_samples(
    spec: DataSpec,
    seed: int,
    reader: ReaderFactory = sample_reader,
    splitter: Splitter | None = None,
    *,
    account: Account | None = None,
    refuse: bool = True,
) -> DataSplit:
    """Read the data that `spec` names and split it.

    Args:
        spec: source and split of the data.
        seed: seed of the split.
        reader: creates the row reader; a task may provide its own.
        splitter: splits the samples; None: `split_samples`.
        account: counts what the rows contain; its notes are the split's, too.
        refuse: False: count the rows that are no sample in `account`, and go on.

    Raises:
        DataError: a file is missing, empty or of the wrong kind, a row is unreadable or lacks a
            required column, or a side of the split is empty.
    """
    source = SOURCES[spec.kind]
    if isinstance(source, SplitSource):
        return source.split(spec, seed)
    account = account or Account()
    rows = source.rows(spec)
    split = (splitter or split_samples)(
        _samples(rows.train, spec, _named(spec.train_files), reader, account, refuse=refuse),
        None
        if rows.eval is None
        else _samples(
            rows.eval,
            spec,
            _named(spec.eval_files or spec.train_files),
            reader,
            account,
            refuse=refuse,
        ),
        spec,
        seed,
    )
    if len(spec.train_files) > 1:
        told = ", ".join(f"{count:,} from {name}" for name, count in account.files.items())
        split.notes.append(f"samples read: {told}")
    split.notes.extend(account.notes())
    return split


def _named(files: Sequence[NamedFile]) -> str:
    return " and ".join(file.first for file in files)


def _samples(
    rows: Iterable[SourceRow],
    spec: DataSpec,
    source: str,
    reader: ReaderFactory,
    account: Account,
    *,
    refuse: bool,
) -> Iterator[Sample]:
    """Turn rows into samples; the first row determines the reader for all."""
    read = None
    kept = False
    for row in rows:
        try:
            if isinstance(row, UnreadableRow):
                raise DataError(row.message)
            if read is None:
                read = accounted(reader(spec, row))
            sample = read(row)
        except UnreadableImageError as error:
            account.refuse(row.origin, str(error))
            continue
        except DataError as error:
            if refuse:
                # What is wrong with the first row, the recipe likely gets wrong about all.
                damaged = isinstance(row, UnreadableRow) or account.rows
                raise DataError(f"{error}{remedy(spec, source) if damaged else ''}") from None
            account.refuse(row.origin, str(error))
            continue
        account.add(sample)
        kept = True
        yield sample
    if not kept:
        raise DataError(account.reasons[0] if account.reasons else f"{source} contains no rows")


def remedy(spec: DataSpec, source: str) -> str:
    """Return what names all rows that cannot be used, and writes the others."""
    if spec.kind != "files":
        return "; `etude data check --recipe RECIPE` names every such row"
    if len(spec.train_files) > 1 or spec.train_files[0].path is None:
        return "; `etude data check --recipe RECIPE --fix FILE.jsonl` names every such row"
    fixed = shlex.quote(f"{Path(source).name.partition('.')[0]}.fixed.jsonl")
    # A run's recipe has absolute paths; a person types the short one.
    if Path(source).is_relative_to(Path.cwd()):
        source = str(Path(source).relative_to(Path.cwd()))
    return (
        f"; `etude data check {shlex.quote(source)} --fix {fixed}` names every such row and writes "
        f"the others to {fixed}"
    )


def split_samples(
    train: Iterable[Sample], held_out: Iterable[Sample] | None, spec: DataSpec, seed: int
) -> DataSplit:
    """Split a stream of samples, storing only those that are used.

    Args:
        train: training samples, also the source of held-out ones if `held_out` is None.
        held_out: evaluation samples; equal training samples are dropped.
        spec: gives `eval_fraction` or `fold`, `max_train` and `max_eval`.
        seed: seed of the hold-out and of the random draws.

    Raises:
        DataError: a side of the split is empty.
    """
    notes: list[str] = []
    train_draw = mixed_draw(spec, seed) if spec.weighted else Draw(spec.max_train, seed)
    eval_draw = Draw(spec.max_eval, seed)
    if held_out is None and spec.fold.of is not None:
        out = _hold_out_fold(train, spec.fold, seed, train_draw, eval_draw)
        notes.append(fold_note(out, out + train_draw.seen, spec.fold))
    elif held_out is None:
        _hold_out(train, spec.eval_fraction, seed, train_draw, eval_draw)
        if spec.eval_fraction > 0:
            notes.append(
                f"held out {eval_draw.seen:,} of {eval_draw.seen + train_draw.seen:,} samples "
                f"by content (data.eval_fraction {spec.eval_fraction:g})"
            )
    else:
        eval_keys: set[bytes] = set()
        for sample in held_out:
            eval_keys.add(content_key(sample))
            eval_draw.add(sample)
        shared = 0
        for sample in train:
            if content_key(sample) in eval_keys:
                shared += 1
            else:
                train_draw.add(sample)
        if shared:
            notes.append(
                f"dropped {shared:,} training samples that are also in the evaluation data"
            )
        if not train_draw.seen:
            raise DataError("every training sample is also in the evaluation data")
    split = DataSplit(train_draw.samples(), eval_draw.samples(), notes)
    notes += train_draw.notes("training")
    notes += eval_draw.notes("evaluation")
    return split


def _hold_out_fold(
    samples: Iterable[Sample], fold: FoldSpec, seed: int, train: Draw | MixedDraw, held: Draw
) -> int:
    """Assign the samples of a fold to `held`, the others to `train`; return how many it has."""
    known = DiskBuffer()
    keys: list[bytes] = []
    for sample in samples:
        known.append(sample)
        keys.append(prompt_key(sample))
    out = held_out_fold(keys, [""] * len(keys), fold, seed, classes=False)
    for place, sample in enumerate(known):
        (held if place in out else train).add(sample)
    return len(out)


def _hold_out(
    samples: Iterable[Sample], fraction: float, seed: int, train: Draw | MixedDraw, held: Draw
) -> None:
    """Assign each sample to `train` or `held` by a hash of its content.

    The held-out share is `fraction` in expectation. If chance would leave no evaluation samples (a
    short file), the content with the lowest hash so far is held out instead; if it would leave no
    training samples, that with the highest is trained on.
    """
    lowest = 1.0
    waiting: list[Sample] = []
    early: list[tuple[float, Sample]] = []  # held out before the first training sample
    for sample in samples:
        place = unit(prompt_key(sample), seed, "side")
        if place < fraction:
            held.add(sample)
            if not train.seen:
                early.append((place, sample))
        elif held.seen or fraction == 0:
            train.add(sample)
        elif place < lowest:
            for earlier in waiting:
                train.add(earlier)
            lowest, waiting = place, [sample]
        elif place == lowest:
            waiting.append(sample)
        else:
            train.add(sample)
        if held.seen and waiting:
            for earlier in waiting:
                train.add(earlier)
            waiting = []
    for sample in waiting:
        held.add(sample)
    if not train.seen and len({place for place, _ in early}) > 1:
        highest = max(place for place, _ in early)
        held.clear()
        for place, sample in early:
            (train if place == highest else held).add(sample)
    if not train.seen:
        raise DataError(
            "no training samples are left: the data are one sample (or copies of one), which is "
            "held out for evaluation; add samples, or set data.eval_fraction to 0"
        )


def prompt_key(sample: Sample) -> bytes:
    """Return the key that decides a sample's side: the prompt for preferences, else all.

    For a text with a label or a positive, or words with tags, the text.

    Preference data have several answers per prompt. Split by answer, the evaluation would ask
    questions that training has answered.
    """
    if sample.label is not None or sample.positive is not None:
        return content_key(replace(sample, label=None, positive=None, negative=None))
    if sample.tags:
        return content_key(replace(sample, tags=()))
    if sample.rejected or sample.desirable is not None:
        return content_key(
            replace(sample, messages=sample.messages[: sample.context], rejected=(), desirable=None)
        )
    return content_key(sample)
