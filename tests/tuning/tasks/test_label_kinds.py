"""Several labels, numbers and pairs: what is read, learnt, saved and predicted."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from etude.core.errors import DataError
from etude.tuning.config.recipe import Recipe
from etude.tuning.evaluation import evaluate_run
from etude.tuning.pipeline import tune
from etude.tuning.predictor import load
from etude.tuning.runs.folder import RunFolder
from etude.tuning.tasks.base import TaskRecord

FAULTS = ("late", "damaged", "rude")


def complaint(number):
    return [word for place, word in enumerate(FAULTS) if (number >> place) & 1]


def complaints(count=96):
    """Rows with any of three labels, each named in the text."""
    return [
        {
            "text": f"parcel is {' , '.join(complaint(n)) or 'fine'} . {('one', 'two')[n % 2]}"
            + " very" * (n % 7)
            + " it" * (n % 11),
            "labels": complaint(n),
        }
        for n in range(count)
    ]


def counts(rows=96):
    """Rows whose number is that of a word in the text, on an odd scale."""
    words = ("one", "two", "three", "four", "five")
    return [
        {
            "text": f"{words[n % 5]} {('cat', 'dog', 'bird')[n % 3]}" + " it" * (n // 15),
            "label": 100.5 + 20 * (n % 5),
        }
        for n in range(rows)
    ]


def pairs(rows=96):
    """Rows that say whether two texts are of the same colour; no single side says it."""
    colours = ("red", "green")
    return [
        {
            "premise": f"it is {colours[n % 2]}" + " very" * (n // 8),
            "hypothesis": f"{('cat', 'dog')[n // 4 % 2]} is {colours[n // 2 % 2]}",
            "label": "same" if n % 2 == n // 2 % 2 else "other",
        }
        for n in range(rows)
    ]


@pytest.fixture(scope="module")
def several(tiny_bert, tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in complaints()), "utf-8")
    fields = {
        "name": "several",
        "task": "text-classification",
        "model": {"id": str(tiny_bert), "dtype": "float32"},
        "adapter": {"rank": 4, "alpha": 8},
        "quant": {"kind": "none"},
        "data": {"train": str(data), "label": "labels", "eval_fraction": 0.25, "max_length": 32},
        "train": {"epochs": 12, "batch_samples": 8, "micro_tokens": 256, "lr": 2e-2, "threads": 1},
    }
    return tune(Recipe.parse(fields), base=folder / "runs")


def test_several_labels_are_learnt_with_thresholds_that_are_saved(several):
    summary = several.summary
    assert [m["name"] for m in summary["metrics"]] == ["eval_loss", "micro_f1", "macro_f1"]
    assert summary["micro_f1"] > 0.9 > summary["micro_f1_before"]
    record = TaskRecord.read(several.folder / "adapter")
    assert record.labels == ("damaged", "late", "rude")
    assert record.options["kind"] == "multi_label"
    assert len(record.options["thresholds"]) == 3
    predicted = load(several.folder).predict(
        ["parcel is late , rude . two", "parcel is fine . one"]
    )
    assert [one.labels for one in predicted] == [("late", "rude"), ()]
    assert predicted[0].as_json()["labels"] == ["late", "rude"]
    assert set(predicted[0].probabilities) == {"damaged", "late", "rude"}


def test_saved_thresholds_decide_and_apply_to_other_data(several, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(several.folder, copy)
    record = TaskRecord.read(copy / "adapter")
    file = tmp_path / "other.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in complaints(32)), "utf-8")
    measured = evaluate_run(RunFolder.open(copy), data=file)["tuned"]
    assert measured["micro_f1"] > 0.9
    never = {**record.options, "thresholds": [1.0, 1.0, 1.0]}
    TaskRecord(record.task, record.labels, never).write(copy / "adapter")
    assert load(copy).predict(["parcel is late . one"])[0].labels == ()
    assert evaluate_run(RunFolder.open(copy), data=file)["tuned"]["micro_f1"] == 0.0


def test_transformers_and_peft_open_several_labels_with_the_same_numbers(several, tiny_bert):
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    base = AutoModelForSequenceClassification.from_pretrained(
        tiny_bert, num_labels=3, problem_type="multi_label_classification"
    )
    model = PeftModel.from_pretrained(base, str(several.folder / "adapter")).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    texts = ["parcel is late , rude .", "parcel is damaged ."]
    with torch.no_grad():
        shares = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits.sigmoid()
    found = [list(one.probabilities.values()) for one in load(several.folder).predict(texts)]
    # float32; the adapter is computed beside the base in another order of sums.
    np.testing.assert_allclose(found, shares, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("how", ["separator", "columns", "json"])
def test_labels_are_read_from_separators_and_columns_as_from_lists(
    how, classifier_fields, tmp_path
):
    rows = complaints(40)
    file = tmp_path / "rows.csv"
    data = {"label": "labels"}
    if how == "columns":
        lines = ["text," + ",".join(FAULTS)]
        lines += [
            f'"{r["text"]}",' + ",".join(str(int(f in r["labels"])) for f in FAULTS) for r in rows
        ]
        data = {"label_columns": list(FAULTS)}
    elif how == "separator":
        lines = ["text,labels"] + [f'"{r["text"]}",{" ; ".join(r["labels"])}' for r in rows]
        data |= {"label_separator": ";"}
    else:
        lines = ["text,labels"] + [
            f'"{r["text"]}","{json.dumps(r["labels"]).replace(chr(34), chr(34) * 2)}"' for r in rows
        ]
    file.write_text("\n".join(lines) + "\n", "utf-8")
    from etude.tuning.data.labelled import load_labelled

    recipe = Recipe.parse(classifier_fields(file, data=data))
    split = load_labelled(recipe.data, 0)
    found = {sample.origin: sample.label for sample in [*split.train, *split.eval]}
    assert found == {
        f"rows.csv:{number + 2}": tuple(row["labels"]) for number, row in enumerate(rows)
    }


def test_a_number_is_learnt_and_predicted_in_its_unit(
    classifier_fields, write_jsonl, tmp_path, tiny_bert
):
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    fields = classifier_fields(write_jsonl(counts()), train={"epochs": 25})
    run = tune(Recipe.parse(fields), base=tmp_path / "runs")
    summary = run.summary
    names = [m["name"] for m in summary["metrics"]]
    assert names == ["eval_loss", "rmse", "mae", "pearson", "spearman"]
    assert summary["rmse"] < 10 < summary["rmse_before"]
    assert summary["pearson"] > 0.9
    record = TaskRecord.read(run.folder / "adapter")
    assert record.options["kind"] == "number" and record.labels == ()
    texts = ["one cat", "five dog"]
    low, high = load(run.folder).predict(texts)
    assert abs(low.number - 100.5) < 20 and abs(high.number - 180.5) < 20
    assert high.as_json() == {"number": high.number}
    measured = evaluate_run(RunFolder.open(run.folder))["tuned"]
    assert measured["rmse"] == pytest.approx(summary["rmse"], rel=1e-5)
    base = AutoModelForSequenceClassification.from_pretrained(
        tiny_bert, num_labels=1, problem_type="regression"
    )
    model = PeftModel.from_pretrained(base, str(run.folder / "adapter")).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    with torch.no_grad():
        scores = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits[:, 0]
    wanted = scores * record.options["deviation"] + record.options["mean"]
    np.testing.assert_allclose([low.number, high.number], wanted, rtol=1e-4)


def test_a_pair_is_encoded_and_classified_as_bert_does(classifier_fields, write_jsonl, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    data = {
        "text": "premise",
        "text_pair": "hypothesis",
        "max_length": 16,
        "too_long": "cut_prompt",
    }
    fields = classifier_fields(
        write_jsonl(pairs()),
        data=data,
        train={"epochs": 3, "lr": 5e-3},
        adapter={"rank": 8, "alpha": 16},
    )
    run = tune(Recipe.parse(fields), base=tmp_path / "runs")
    predictor = load(run.folder)
    inputs = [("it is red", "cat is red"), ("it is green very very", "dog is red")]
    found = [list(one.probabilities.values()) for one in predictor.predict(inputs)]
    tokenizer = AutoTokenizer.from_pretrained(fields["model"]["id"])
    encoded = tokenizer(*map(list, zip(*inputs, strict=True)), padding=True, return_tensors="pt")
    assert encoded["token_type_ids"].sum() > 0
    base = AutoModelForSequenceClassification.from_pretrained(fields["model"]["id"], num_labels=2)
    model = PeftModel.from_pretrained(base, str(run.folder / "adapter")).eval()
    with torch.no_grad():
        shares = model(**encoded).logits.softmax(1)
        blind = model(**{**encoded, "token_type_ids": encoded["token_type_ids"] * 0}).logits
    np.testing.assert_allclose(found, shares, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(blind.softmax(1), shares, atol=1e-4)
    # A pair that is too long loses tokens of its longer side, and keeps both ends.
    tokens = predictor.encoder.tokens(["it " * 40], ["dog is red"])[0]
    cut = predictor.encoder.fitted(tokens, "it " * 40, "dog is red").ids
    names = tokenizer.convert_ids_to_tokens(cut)
    assert len(cut) == 16 and names[-4:] == ["dog", "is", "red", "[SEP]"]
    from etude.app.predict import plan_predictions, predictions

    rows = tmp_path / "new.csv"
    rows.write_text(
        "hypothesis,premise\n" + "".join(f"{second},{first}\n" for first, second in inputs), "utf-8"
    )
    lines = ["\t".join(pair) for pair in inputs]
    for source in (rows, lines):
        made = list(predictions(plan_predictions(str(run.folder), source)))
        assert [one.as_json()["input"] for one in made] == [list(pair) for pair in inputs]
        assert [list(one.prediction.probabilities.values()) for one in made] == found
    with pytest.raises(DataError, match=r"input 1 must be two texts with a tab between them"):
        list(predictions(plan_predictions(str(run.folder), ["one text"])))
    with pytest.raises(DataError, match=r"this run classifies pairs: columns 'premise' and"):
        plan_predictions(str(run.folder), rows, column="premise")
    with pytest.raises(DataError, match=r"input 1 is one text, and this run classifies pairs"):
        predictor.predict(["it is red"])


def test_a_decoders_pair_is_parted_by_a_line_end(tiny_llama):
    from transformers import AutoTokenizer

    from etude.tuning.config.sections.data import DataSpec
    from etude.tuning.tasks.text_encoder import TextEncoder

    tokenizer = AutoTokenizer.from_pretrained(tiny_llama())
    encoder = TextEncoder(tokenizer, DataSpec(), ("a", "b"))
    (pair,) = encoder.tokens(["def add"], ["return"])
    assert pair.ids == tokenizer("def add\nreturn")["input_ids"]
    assert pair.types is None


@pytest.mark.parametrize(
    ("labels", "setting", "kind"),
    [
        (["a", "b"], "auto", "class"),
        ([0, 1, 2], "auto", "class"),
        ([1.0, 2.0], "auto", "class"),
        ([True, False], "auto", "class"),
        (["0.5", "2"], "auto", "number"),
        ([0.5, 2.0], "auto", "number"),
        ([0, 1, 2], "number", "number"),
        (["3.10", "3.11"], "class", "class"),
        ([["a"], []], "auto", "multi_label"),
        (["a", "b"], "multi_label", "multi_label"),
    ],
)
def test_the_kind_of_label_is_that_of_all_rows(labels, setting, kind):
    from etude.tuning.config.sections.data import DataSpec
    from etude.tuning.data.labels import label_kind, read_label
    from etude.tuning.data.schema import Sample
    from etude.tuning.data.sources.registry import Row

    spec = DataSpec(label_kind=setting)
    samples = [
        Sample((), "text", f"f:{i}", label=read_label(Row(f"f:{i}", {"label": label}), spec))
        for i, label in enumerate(labels)
    ]
    assert label_kind(spec, samples) == kind
