"""Labelled data that cannot be learnt: one line that names rows, before anything is loaded."""

from __future__ import annotations

from collections import Counter

import pytest

from etude.core.errors import DataError, RecipeError
from etude.tuning.config.recipe import Recipe
from etude.tuning.tasks.text_classification import TextClassification


def rows(count=40, labels=("negative", "positive")):
    return [{"text": f"text {n}", "label": labels[n % len(labels)]} for n in range(count)]


@pytest.fixture
def read(write_jsonl, classifier_fields):
    """Read training rows, and evaluation rows if given, as a run does."""

    def call(train, held_out=None, /, **sections):
        data = {"eval": str(write_jsonl(held_out, "dev.jsonl"))} if held_out else {}
        data |= sections.pop("data", {})
        fields = classifier_fields(write_jsonl(train), data=data, **sections)
        return TextClassification().read(Recipe.parse(fields))

    return call


def changed(number, **values):
    found = rows()
    found[number] |= values
    return found


FAULTS = {
    "an unseen label": (
        rows(),
        changed(3, label="positiv")[:8],
        {},
        r"no label 'positiv' \(did you mean 'positive'\?\): dev.jsonl:4; remove these rows",
    ),
    "other names of labels": (
        rows(labels=(0, 1)),
        [{"text": f"dev {n}", "label": "ab"[n % 2]} for n in range(4)],
        {"label_kind": "class"},
        r"other labels than the training data: 'a', 'b', not '0', '1'",
    ),
    "names against numbers": (
        rows(labels=(0, 1)),
        [{"text": f"dev {n}", "label": "ab"[n % 2]} for n in range(4)],
        {},
        r"holds a text \('a'\) in dev.jsonl:1, dev.jsonl:2, .*, but numbers \(such as '0'\)",
    ),
    "one class": (rows(labels=("x",)), None, {}, "every training row has the label 'x'"),
    "empty texts": (
        [*changed(4, text=" "), {"text": "", "label": "negative"}],
        None,
        {},
        r"rows.jsonl:5, rows.jsonl:41: column 'text' is empty; give 2 rows a text",
    ),
    "an empty second text": (
        [{"text": "a", "pair": "b", "label": "x"}, {"text": "a", "pair": " ", "label": "y"}],
        None,
        {"text_pair": "pair"},
        r"rows.jsonl:2: column 'text' or 'pair' is empty",
    ),
    "no such column": (
        [{"text": "a", "lable": "x"}],
        None,
        {},
        r"rows.jsonl:1: no column 'label' \(data.label\) \(did you mean 'lable'\?\)",
    ),
    "no such text": (
        [{"texts": "a", "label": "x"}],
        None,
        {},
        r"rows.jsonl:1: no column 'text' \(data.text\) \(did you mean 'texts'\?\)",
    ),
    "equal rows": (
        [{"text": "same", "label": "x"}] * 20,
        rows()[:4],
        {},
        "all 20 training rows have the same text",
    ),
    "equal texts": (
        [{"text": "same", "label": "xy"[n % 2]} for n in range(20)],
        rows()[:4],
        {},
        "all 20 training rows have the same text",
    ),
    "a number among labels": (
        changed(6, label=0.73),
        None,
        {},
        r"holds a number \('0.73'\) in rows.jsonl:7, but texts \(such as 'negative'\) in 39 other",
    ),
    "a label among numbers": (
        [{"text": f"t {n}", "label": "high" if n == 2 else n / 4} for n in range(20)],
        None,
        {},
        r"holds a text \('high'\) in rows.jsonl:3, but numbers \(such as '0'\) in 19 other rows",
    ),
    "a text where a number must be": (
        [{"text": f"t {n}", "label": "high" if n == 2 else n} for n in range(20)],
        None,
        {"label_kind": "number"},
        r"must hold numbers .* not in rows.jsonl:3, the first .* 'high'",
    ),
    "identifiers": (
        [{"text": f"t {n}", "label": f"id-{n:05}"} for n in range(10_000)],
        None,
        {},
        r"has [\d,]+ different labels in [\d,]+ training rows .*an identifier or a text rather",
    ),
    "amounts": (
        [{"text": f"t {n}", "label": n * 7} for n in range(200)],
        None,
        {},
        r"set data.label_kind: number if they are quantities",
    ),
    "lists among labels": (
        changed(9, label=["negative"]),
        None,
        {},
        r"holds a list of labels in rows.jsonl:10, but not in the other rows",
    ),
    "lists for one class": (
        [{"text": f"t {n}", "label": ["a"]} for n in range(9)],
        None,
        {"label_kind": "class"},
        r"holds lists of labels \(rows.jsonl:1, .*\), but data.label_kind is class",
    ),
    "no flag": (
        [{"text": "a", "late": 1, "rude": "maybe"}],
        None,
        {"label_columns": ["late", "rude"]},
        r"rows.jsonl:1: column 'rude' must hold 0 or 1 \(data.label_columns\), got 'maybe'",
    ),
    "no flag column": (
        [{"text": "a", "late": 1, "rud": 0}],
        None,
        {"label_columns": ["late", "rude"]},
        r"no column 'rude' \(data.label_columns\) \(did you mean 'rud'\?\)",
    ),
    "too few draws": (
        rows(labels=tuple("abcdefgh")),
        None,
        {"max_train": 5},
        "data.max_train 5 is less than the 8 classes",
    ),
    "equal numbers": (
        [{"text": f"t {n}", "label": 0.5} for n in range(20)],
        None,
        {},
        "every training row has the label 0.5; a number cannot be learnt",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_line_with_rows(read, fault):
    train, held_out, data, message = FAULTS[fault]
    with pytest.raises(DataError, match=message) as caught:
        read(train, held_out, data=data)
    assert "\n" not in str(caught.value)


def test_what_may_look_like_a_fault_is_taken_when_the_recipe_says_so(read):
    mixed = [{"text": f"t {n}", "label": ["1", "2", "other"][n % 3]} for n in range(30)]
    split = read(mixed, data={"label_kind": "class"})
    assert {s.label for s in split.train} == {"1", "2", "other"}
    many = [{"text": f"t {n}", "label": f"id-{n // 2}"} for n in range(400)]
    assert read(many, data={"label_kind": "class"}).train
    amounts = [{"text": f"t {n}", "label": n * 7} for n in range(200)]
    split = read(amounts, data={"label_kind": "number"})
    assert any("numbers from" in note for note in split.notes)


def test_options_that_balance_classes_are_refused_where_there_are_none(read):
    numbers = [{"text": f"t {n}", "label": n / 4} for n in range(40)]
    with pytest.raises(DataError, match=r"objective.class_weights is for classes.*are numbers"):
        read(numbers, objective={"class_weights": "balanced"})
    lists = [{"text": f"t {n}", "label": ["a"] if n % 2 else []} for n in range(40)]
    with pytest.raises(DataError, match=r"train.sampling is for classes.*several labels a row"):
        read(lists, train={"sampling": "balanced"})
    with pytest.raises(RecipeError, match="focal_gamma is for task: text-classification"):
        Recipe.parse({"data": {"train": "x"}, "objective": {"focal_gamma": 2}})


def test_the_split_keeps_the_shares_of_the_classes_by_the_seed(read):
    found = [{"text": f"t {n}", "label": "rare" if n % 20 == 0 else "usual"} for n in range(200)]
    found.append({"text": "alone", "label": "single"})
    split = read(found)
    assert Counter(s.label for s in split.eval) == {"usual": 48, "rare": 2}
    assert Counter(s.label for s in split.train)["single"] == 1
    notes = "\n".join(split.notes)
    assert "held out 50 of 201 samples, the same share of every class" in notes
    assert "class 'single' has one row only, which is trained on and not evaluated" in notes
    assert "rows.jsonl:201" in notes
    again = read(found)
    assert [s.origin for s in again.eval] == [s.origin for s in split.eval]
    other = read(found, train={"seed": 1})
    assert [s.origin for s in other.eval] != [s.origin for s in split.eval]
    assert Counter(s.label for s in other.eval) == {"usual": 48, "rare": 2}


def test_equal_texts_are_on_one_side_whatever_their_labels(read):
    found = [{"text": f"t {n % 20}", "label": "ab"[n % 2]} for n in range(80)]
    found += [{"text": f"t {n}", "label": "ba"[n % 2]} for n in range(4)]
    split = read(found)
    assert not {s.text for s in split.train} & {s.text for s in split.eval}
    assert {s.label for s in split.eval} == {"a", "b"}


def test_draws_keep_every_class(read):
    labels = ["usual"] * 80 + ["rare"] * 4 + ["rarest"] * 3
    found = [{"text": f"t {n}", "label": label} for n, label in enumerate(labels)]
    split = read(found, data={"max_train": 10, "max_eval": 5})
    assert Counter(s.label for s in split.train) == {"usual": 8, "rare": 1, "rarest": 1}
    assert len(split.eval) == 5
    assert any("drew 10 of" in note for note in split.notes)


def test_no_label_is_left_to_the_evaluation_alone(read):
    found = [{"text": f"t {n}", "label": ["often"] if n % 3 else []} for n in range(60)]
    for n in range(8):
        found[n]["label"] = ["often", f"rare {n}"]
    for seed in range(4):
        split = read(found, data={"eval_fraction": 0.5}, train={"seed": seed})
        assert {label for s in split.train for label in s.label} == {
            "often",
            *(f"rare {n}" for n in range(8)),
        }
    drawn = read(found, data={"max_train": 12})
    assert len(drawn.train) == 12
    assert len({label for s in drawn.train for label in s.label}) == 9
    with pytest.raises(DataError, match=r"data.max_train 5 is too few rows for the 9 labels"):
        read(found, data={"max_train": 5})


def test_many_classes_are_condensed_and_whole_numbers_are_pointed_out(read):
    split = read(rows(300, labels=tuple(range(30))))
    notes = "\n".join(split.notes)
    assert "labels: 30 classes (column label), 8 rows each" in notes
    assert "the labels are whole numbers, read as classes" in notes


def test_class_indices_do_not_depend_on_the_order_of_the_rows(read):
    recipe = Recipe.parse({"task": "text-classification", "data": {"train": "x"}})
    task = TextClassification()
    one = task.head(read(rows()), recipe)
    other = task.head(read(list(reversed(rows()))), recipe)
    assert one.labels == other.labels == ("negative", "positive")
