"""Stratified folds: every sample is held out in one of k runs, each class in equal parts.

The samples of each class go round the folds in the order of a hash of their text, the seed and the
repeat, so a fold has of every class as many samples as in scikit-learn's `StratifiedKFold`: the
share of the whole, up to one sample. Samples with the same text stay in the same fold, the one that
lacks the most of what they are; only so much does a fold differ from that count.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from etude.core.errors import DataError
from etude.tuning.config.sections.data import FoldSpec
from etude.tuning.data.draws import unit


def held_out_fold(
    keys: Sequence[bytes], strata: Sequence[str], fold: FoldSpec, seed: int, *, classes: bool
) -> set[int]:
    """Return the places of the samples that a fold holds out.

    Args:
        keys: (N,) of the samples; equal ones stay together.
        strata: (N,) what each is balanced by: its class, or nothing.
        fold: which fold of how many.
        seed: of the recipe.
        classes: whether each stratum is a class that every fold needs.

    Raises:
        DataError: there are fewer different texts, of all or of one class, than folds.
    """
    assert fold.of is not None
    _require_enough(keys, strata, fold.of, classes=classes)
    assigned = fold_numbers(keys, strata, fold.of, seed, fold.repeat)
    return {place for place, number in enumerate(assigned) if number == fold.number - 1}


def fold_numbers(
    keys: Sequence[bytes], strata: Sequence[str], count: int, seed: int, repeat: int
) -> list[int]:
    """Return the fold of each sample, from 0; arguments as `held_out_fold`."""
    names = list(dict.fromkeys(strata))
    index = {name: number for number, name in enumerate(names)}
    left = _quotas(strata, names, count)
    groups: defaultdict[bytes, list[int]] = defaultdict(list)
    for place, key in enumerate(keys):
        groups[key].append(place)
    order = {key: unit(b"%d:" % repeat + key, seed, "fold") for key in groups}
    found = [0] * len(keys)
    together = [key for key, members in groups.items() if len(members) > 1]
    for key in sorted(together, key=lambda key: (-len(groups[key]), order[key], key)):
        needs = Counter(index[strata[place]] for place in groups[key])
        best = max(
            range(count),
            key=lambda fold: (
                sum(min(need, max(0, left[fold][one])) for one, need in needs.items()),
                sum(left[fold]),
            ),
        )
        for one, need in needs.items():
            left[best][one] -= need
        for place in groups[key]:
            found[place] = best
    single: defaultdict[int, list[bytes]] = defaultdict(list)
    for key, members in groups.items():
        if len(members) == 1:
            single[index[strata[members[0]]]].append(key)
    for one, members in single.items():
        members.sort(key=lambda key: (order[key], key))
        # There are at least as many: what groups took beyond a quota, others have left.
        free = [
            fold
            for taken in range(max(row[one] for row in left))
            for fold in range(count)
            if left[fold][one] > taken
        ]
        for key, fold in zip(members, free, strict=False):
            found[groups[key][0]] = fold
    return found


def fold_note(out: int, total: int, fold: FoldSpec, more: str = "") -> str:
    """Return what a fold holds out, in a line for the report."""
    repeat = f" of repeat {fold.repeat}" if fold.repeat > 1 else ""
    return (
        f"held out {out:,} of {total:,} samples{more}: fold {fold.number} of {fold.of}{repeat} "
        "(data.fold)"
    )


def _quotas(strata: Sequence[str], names: Sequence[str], count: int) -> list[list[int]]:
    """Return how many of each stratum each fold has: sorted by stratum, every k-th is the same."""
    sizes = Counter(strata)
    quotas = [[0] * len(names) for _ in range(count)]
    place = 0
    for one, name in enumerate(names):
        for _ in range(sizes[name]):
            quotas[place % count][one] += 1
            place += 1
    return quotas


def _require_enough(
    keys: Sequence[bytes], strata: Sequence[str], count: int, *, classes: bool
) -> None:
    distinct = len(set(keys))
    if distinct < count:
        raise DataError(
            f"{distinct:,} different samples are fewer than {count} folds; ask for fewer folds"
        )
    if not classes:
        return
    texts: defaultdict[str, set[bytes]] = defaultdict(set)
    for key, name in zip(keys, strata, strict=True):
        texts[name].add(key)
    rare = sorted((len(found), name) for name, found in texts.items() if len(found) < count)
    if rare:
        least, name = rare[0]
        others = f" (and {len(rare) - 1:,} more classes have too few)" if len(rare) > 1 else ""
        most = f"at most {least}" if least > 1 else "no"
        raise DataError(
            f"class {name!r} has {least:,} different text{'' if least == 1 else 's'}, fewer than "
            f"{count} folds{others}, so not every fold would have one; ask for {most} folds, or "
            "add rows"
        )
