"""Samples of labelled texts and pairs of texts, and their split by class.

Where the recipe names no evaluation data, a share of every class is held out: its samples in the
order of a hash of their text and the seed, the first ones first. Equal texts fall on the same side.
Draws (`data.max_train`, `data.max_eval`) keep the shares of the classes too.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

from etude.core.errors import DataError
from etude.tuning.config.sections.data import DataSpec, FoldSpec
from etude.tuning.data.account import Account
from etude.tuning.data.columns import field_reader
from etude.tuning.data.disk_buffer import DiskBuffer
from etude.tuning.data.draws import content_key, unit
from etude.tuning.data.folds import fold_note, held_out_fold
from etude.tuning.data.labels import (
    LabelError,
    LabelKind,
    label_kind,
    labels_of,
    read_label,
    rows_named,
)
from etude.tuning.data.samples import ReaderFactory, load_samples, prompt_key
from etude.tuning.data.schema import DataSplit, Sample
from etude.tuning.data.sources.registry import Row


def load_labelled(
    spec: DataSpec,
    seed: int,
    *,
    account: Account | None = None,
    refuse: bool = True,
    reader: ReaderFactory | None = None,
) -> DataSplit:
    """Read the labelled texts that `spec` names, and split them.

    Args:
        spec: source and split of the data.
        seed: seed of the split.
        account: as for `load_samples`.
        refuse: as for `load_samples`.
        reader: of images with labels, say; None: of texts.

    Raises:
        DataError: as `load_samples`; also if a text is empty, with the rows of all such texts.
    """
    if spec.weighted:
        raise DataError(
            "data.train: weights of files are for conversations and texts; of labelled texts, "
            "name the files without weights, and balance classes by train.sampling"
        )
    return load_samples(
        spec, seed, reader or labelled_reader, split_labelled, account=account, refuse=refuse
    )


def labelled_reader(spec: DataSpec, first: Row) -> Callable[[Row], Sample]:
    """Return a function that reads text, second text and label of a row."""
    del first
    text = field_reader(spec.text, "data.text")
    pair = None if spec.text_pair is None else field_reader(spec.text_pair, "data.text_pair")

    def read(row: Row) -> Sample:
        second = None if pair is None else pair(row)
        return Sample((), text(row), row.origin, pair=second, label=read_label(row, spec))

    return read


def is_empty(sample: Sample) -> bool:
    """Return whether a text of the sample is empty."""
    return not (sample.text or "").strip() or (sample.pair is not None and not sample.pair.strip())


def split_labelled(
    train: Iterable[Sample], held_out: Iterable[Sample] | None, spec: DataSpec, seed: int
) -> DataSplit:
    """Split labelled samples; see the module's description.

    Args:
        train: training samples, also the source of held-out ones if `held_out` is None.
        held_out: evaluation samples, or None.
        spec: `eval_fraction`, `max_train` and `max_eval` are used.
        seed: seed of the split and the draws.

    Raises:
        DataError: a text is empty, labels are of several kinds, or a side has no samples left.
    """
    known = _Known(train)
    notes: list[str] = []
    if held_out is None:
        _require_texts([known], spec)
        kind = label_kind(spec, known.samples)
        out = (
            _fold_places(known.samples, kind, spec.fold, seed)
            if spec.fold.of is not None
            else held_out_places(known.samples, kind, spec.eval_fraction, seed)
        )
        rest = [i for i in range(len(known.samples)) if i not in out]
        evaluated = known, sorted(out)
        each = ", the same share of every class" if kind == "class" else ""
        if spec.fold.of is not None:
            notes.append(fold_note(len(out), len(known.samples), spec.fold, each))
        elif spec.eval_fraction > 0:
            notes.append(
                f"held out {len(out):,} of {len(known.samples):,} samples{each} "
                f"(data.eval_fraction {spec.eval_fraction:g})"
            )
    else:
        other = _Known(held_out)
        _require_texts([known, other], spec)
        kind = label_kind(spec, [*known.samples, *other.samples])
        shared = {content_key(sample) for sample in other.samples}
        rest = [i for i, s in enumerate(known.samples) if content_key(s) not in shared]
        evaluated = other, list(range(len(other.samples)))
        if len(rest) < len(known.samples):
            notes.append(
                f"dropped {len(known.samples) - len(rest):,} training samples that are also in "
                "the evaluation data"
            )
    if not rest:
        raise DataError(
            "every training sample is also in the evaluation data"
            if held_out is not None
            else "no training samples are left: the data are one sample (or copies of one), "
            "which is held out for evaluation; add samples, or set data.eval_fraction to 0"
        )
    sides: list[Sequence[Sample]] = []
    for name, (source, chosen), limit in (
        ("training", (known, rest), spec.max_train),
        ("evaluation", evaluated, spec.max_eval),
    ):
        wanted = set(chosen)
        picked = [sample for i, sample in enumerate(source.samples) if i in wanted]
        drawn = _drawn(picked, kind, limit, seed, name)
        if len(drawn) < len(picked):
            notes.append(f"drew {len(drawn):,} of {len(picked):,} {name} samples")
        sides.append(drawn)
    return DataSplit(sides[0], sides[1], notes)


class _Known:
    """Samples that were read, and which of them have an empty text."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self.samples = DiskBuffer()
        self.empty: list[str] = []
        for sample in samples:
            self.samples.append(sample)
            if is_empty(sample):
                self.empty.append(sample.origin)


def _require_texts(sources: Sequence[_Known], spec: DataSpec) -> None:
    empty = [origin for source in sources for origin in source.empty]
    if not empty:
        return
    columns = repr(spec.text) + ("" if spec.text_pair is None else f" or {spec.text_pair!r}")
    raise LabelError(
        "empty-texts",
        empty,
        f"{rows_named(empty)}: column {columns} is empty; give {len(empty):,} "
        f"{'row a text or remove it' if len(empty) == 1 else 'rows a text or remove them'}",
    )


def _strata(samples: Sequence[Sample], kind: LabelKind) -> list[str]:
    """Return what each sample is balanced by: its class, or nothing."""
    if kind != "class":
        return [""] * len(samples)
    return [str(sample.label) for sample in samples]


def _fold_places(samples: Sequence[Sample], kind: LabelKind, fold: FoldSpec, seed: int) -> set[int]:
    """Return the places that a fold holds out; several labels of a row are balanced as one."""
    strata = (
        ["; ".join(sorted(labels_of(sample))) for sample in samples]
        if kind == "multi_label"
        else _strata(samples, kind)
    )
    keys = [prompt_key(sample) for sample in samples]
    return held_out_fold(keys, strata, fold, seed, classes=kind == "class")


def held_out_places(
    samples: Sequence[Sample], kind: LabelKind, fraction: float, seed: int
) -> set[int]:
    """Return the places of the samples to hold out: of every class its share, never the last.

    At least one sample of every class that has two is held out. Equal texts stay together. Of
    samples with several labels, the last of a label is not held out either.

    Args:
        samples: all samples.
        kind: what their labels are.
        fraction: share to hold out.
        seed: of the split.
    """
    if fraction == 0:
        return set()
    keys = [prompt_key(sample) for sample in samples]
    strata = _strata(samples, kind)
    by_text: defaultdict[bytes, list[int]] = defaultdict(list)
    for index, key in enumerate(keys):
        by_text[key].append(index)
    places = {key: unit(key, seed, "side") for key in by_text}
    left = Counter(strata)
    quota = {
        stratum: min(count - 1, max(1, round(fraction * count))) for stratum, count in left.items()
    }
    several = [labels_of(sample) if kind == "multi_label" else () for sample in samples]
    labels_left = Counter(label for labels in several for label in labels)
    out: set[int] = set()
    for key in sorted(by_text, key=lambda key: (places[key], key)):
        members = by_text[key]
        needed = Counter(strata[index] for index in members)
        labels = Counter(label for index in members for label in several[index])
        spare = all(left[stratum] > count for stratum, count in needed.items()) and all(
            labels_left[label] > count for label, count in labels.items()
        )
        if spare and any(quota[stratum] > 0 for stratum in needed):
            out.update(members)
            left -= needed
            labels_left -= labels
            for stratum, count in needed.items():
                quota[stratum] -= count
    return out


def _drawn(
    samples: list[Sample], kind: LabelKind, limit: int | None, seed: int, name: str
) -> list[Sample]:
    """Draw at most `limit` samples, every class in proportion and, in training, at least once.

    Raises:
        DataError: `limit` is too low for one sample of every class or label.
    """
    if limit is None or len(samples) <= limit:
        return samples
    places = [unit(content_key(s) + s.origin.encode(), seed, "draw") for s in samples]
    if kind == "multi_label" and name == "training":
        return _covering(samples, places, limit)
    by_stratum: defaultdict[str, list[int]] = defaultdict(list)
    for index, stratum in enumerate(_strata(samples, kind)):
        by_stratum[stratum].append(index)
    least = 1 if name == "training" else 0
    if least * len(by_stratum) > limit:
        raise DataError(
            f"data.max_train {limit:,} is less than the {len(by_stratum):,} classes; raise it"
        )
    exact = {s: limit * len(members) / len(samples) for s, members in by_stratum.items()}
    quota = {stratum: max(least, int(share)) for stratum, share in exact.items()}
    # Largest remainders first; where the least of each class is too much, the largest classes give.
    order = sorted(exact, key=lambda s: (int(exact[s]) - exact[s], s))
    for stratum in order:
        if sum(quota.values()) >= limit:
            break
        quota[stratum] += quota[stratum] <= exact[stratum]
    while sum(quota.values()) > limit:
        quota[max(quota, key=lambda s: (quota[s], s))] -= 1
    chosen: list[int] = []
    for stratum, members in by_stratum.items():
        chosen += sorted(members, key=lambda i: places[i])[: quota[stratum]]
    return [samples[i] for i in sorted(chosen)]


def _covering(samples: list[Sample], places: Sequence[float], limit: int) -> list[Sample]:
    """Draw `limit` samples so that every label occurs.

    Raises:
        DataError: so few samples do not hold every label.
    """
    order = sorted(range(len(samples)), key=lambda i: places[i])
    known: set[str] = set()
    first: list[int] = []
    for index in order:
        if not known.issuperset(labels := labels_of(samples[index])):
            first.append(index)
            known.update(labels)
    if len(first) > limit:
        raise DataError(
            f"data.max_train {limit:,} is too few rows for the {len(known):,} labels; raise it"
        )
    taken = set(first)
    chosen = [*first, *(index for index in order if index not in taken)][:limit]
    return [samples[index] for index in sorted(chosen)]
