"""Folds: of the sizes of scikit-learn's, by class, with equal texts together."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import KFold, StratifiedKFold

from etude.core.errors import DataError, RecipeError
from etude.tuning.config.recipe import Recipe
from etude.tuning.config.sections.data import DataSpec, FoldSpec
from etude.tuning.data.folds import fold_numbers
from etude.tuning.data.labelled import split_labelled
from etude.tuning.data.samples import split_samples
from etude.tuning.data.schema import Sample


def keys(count):
    return [f"text {i}".encode() for i in range(count)]


def per_fold(numbers, strata, count):
    return [
        Counter(s for n, s in zip(numbers, strata, strict=True) if n == fold)
        for fold in range(count)
    ]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(2, 40), min_size=1, max_size=8),
    st.integers(2, 7),
    st.integers(0, 2**32),
)
def test_every_fold_has_of_each_class_what_scikit_learns_fold_has(sizes, count, seed):
    strata = [f"c{label}" for label, size in enumerate(sizes) for _ in range(size)]
    strata = np.random.default_rng(seed).permutation(strata).tolist()
    if len(strata) < count or max(Counter(strata).values()) < count:
        return  # scikit-learn refuses
    peer = StratifiedKFold(count, shuffle=True, random_state=0)
    with pytest.warns() if min(Counter(strata).values()) < count else _quiet():
        expected = [Counter(np.array(strata)[held]) for _, held in peer.split(strata, strata)]
    found = per_fold(fold_numbers(keys(len(strata)), strata, count, seed, 1), strata, count)
    assert found == expected


def _quiet():
    import warnings

    return warnings.catch_warnings(action="error")


def test_without_classes_the_sizes_are_those_of_plain_folds():
    numbers = fold_numbers(keys(23), [""] * 23, 5, 0, 1)
    sizes = [len(held) for _, held in KFold(5).split(np.zeros(23))]
    assert [Counter(numbers)[fold] for fold in range(5)] == sizes


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 2)), min_size=12, max_size=120))
def test_equal_texts_stay_together_and_every_sample_has_one_fold(pairs):
    texts = [b"%d" % text for text, _ in pairs]
    strata = [str(label) for _, label in pairs]
    numbers = fold_numbers(texts, strata, 3, 7, 1)
    assert len(numbers) == len(pairs) and set(numbers) <= {0, 1, 2}
    assert len(set(zip(texts, numbers, strict=True))) == len(set(texts))


def test_pairs_of_equal_texts_leave_the_shares_of_the_classes():
    texts = [b"%d" % (i // 2) for i in range(120)]
    strata = ["a" if i < 80 else "b" for i in range(120)]
    found = per_fold(fold_numbers(texts, strata, 5, 0, 1), strata, 5)
    assert all(fold == {"a": 16, "b": 8} for fold in found)


def test_a_fold_depends_on_seed_and_repeat_and_not_on_the_order_of_other_texts():
    strata = ["a", "b"] * 30
    first = fold_numbers(keys(60), strata, 5, 0, 1)
    assert first == fold_numbers(keys(60), strata, 5, 0, 1)
    assert first != fold_numbers(keys(60), strata, 5, 1, 1)
    assert first != fold_numbers(keys(60), strata, 5, 0, 2)


def _labelled(counts, prefix=""):
    return [
        Sample((), f"{prefix}{label} {i}", f"rows.csv:{i}", label=label)
        for label, count in counts.items()
        for i in range(count)
    ]


def test_the_folds_of_labelled_texts_hold_out_every_text_once():
    samples = _labelled({"good": 40, "bad": 21})
    seen = []
    for number in range(1, 5):
        spec = DataSpec(train="rows.csv", fold=FoldSpec(of=4, number=number))
        split = split_labelled(samples, None, spec, 3)
        assert {s.text for s in split.train} | {s.text for s in split.eval} == {
            s.text for s in samples
        }
        assert f"fold {number} of 4" in split.notes[0]
        assert Counter(s.label for s in split.eval)["good"] == 10
        seen += [sample.text for sample in split.eval]
    assert sorted(seen) == sorted(sample.text for sample in samples)


def test_the_folds_of_other_samples_hold_out_every_sample_once():
    samples = [Sample.plain(f"text {i % 20}", f"t:{i}") for i in range(30)]
    seen = []
    for number in range(1, 4):
        spec = DataSpec(train="t", fold=FoldSpec(of=3, number=number))
        split = split_samples(iter(samples), None, spec, 0)
        assert not {s.text for s in split.train} & {s.text for s in split.eval}
        seen += [sample.origin for sample in split.eval]
    assert sorted(seen) == sorted(sample.origin for sample in samples)


def test_too_few_samples_for_the_folds_are_one_clear_line():
    spec = DataSpec(train="rows.csv", fold=FoldSpec(of=5, number=1))
    with pytest.raises(DataError, match="class 'rare' has 3 different texts, fewer than 5 folds"):
        split_labelled(_labelled({"common": 40, "rare": 3}), None, spec, 0)
    copies = [*_labelled({"common": 40}), *(_labelled({"rare": 1}) * 9)]
    with pytest.raises(DataError, match=r"class 'rare' has 1 different text, .* no folds"):
        split_labelled(copies, None, spec, 0)
    with pytest.raises(DataError, match="4 different samples are fewer than 5 folds"):
        split_samples([Sample.plain(f"{i}", "t") for i in range(4)], None, spec, 0)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"eval": "dev.csv"}, "omit data.eval"),
        ({"kind": "docstrings", "train": None}, "docstrings are held out by whole packages"),
        ({"fold": {"of": 3, "number": 4}}, "is more than data.fold.of 3"),
    ],
)
def test_what_has_no_folds_is_refused(data, told):
    fields = {"train": "rows.csv", "fold": {"of": 5, "number": 1}, **data}
    with pytest.raises(RecipeError, match=told):
        Recipe.parse({"data": fields})
