"""What a classifier must beat, that it is not its base, and a head alone."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.dummy import DummyClassifier
from sklearn.metrics import accuracy_score, f1_score

from etude.core.errors import AdapterError, RecipeError, RunError
from etude.core.progress import SilentProgress
from etude.tuning.config.recipe import Recipe
from etude.tuning.data.encoded import EncodedSample
from etude.tuning.data.schema import Sample
from etude.tuning.evaluation import evaluate_run
from etude.tuning.metrics.metric import ACCURACY, MACRO_F1
from etude.tuning.pipeline import require_effect, tune
from etude.tuning.predictor import load
from etude.tuning.runs.folder import RunFolder
from etude.tuning.tasks.baselines import baselines, beside_model
from etude.tuning.training.measurement import Measurement


def encoded(texts, labels):
    none = np.zeros(1, np.bool_)
    return SimpleNamespace(
        samples=[
            EncodedSample(np.zeros(1, np.int32), none, f"f:{i}", label=label)
            for i, label in enumerate(labels)
        ],
        sources=[Sample((), text, f"f:{i}") for i, text in enumerate(texts)],
    )


def score(kind, labels, train, held_out, **options):
    options = {"balanced": False, "progress": SilentProgress(), **options}
    return baselines(kind, labels, encoded(*train), encoded(*held_out), **options)


def words(rows, seed=0):
    """Texts whose class is that of one of their words, most of them of class 0."""
    random = np.random.default_rng(seed)
    labels = random.choice(3, rows, p=[0.6, 0.3, 0.1])
    texts = [
        f"{('red', 'green', 'blue')[c]} {' '.join(random.choice(list('xyz'), 3))}" for c in labels
    ]
    return texts, [int(c) for c in labels]


def test_baselines_of_classes_are_those_of_scikit_learn():
    train, held_out = words(120), words(60, seed=1)
    constant, linear = score("class", 3, train, held_out)["rows"]
    dummy = DummyClassifier().fit(train[0], train[1]).predict(held_out[0])
    assert constant["name"] == "majority class"
    assert constant["metrics"] == pytest.approx(
        {
            "accuracy": accuracy_score(held_out[1], dummy),
            "macro_f1": f1_score(held_out[1], dummy, average="macro"),
        }
    )
    assert linear["name"] == "TF-IDF + logistic regression"
    assert linear["metrics"] == {"accuracy": 1.0, "macro_f1": 1.0}


def test_baselines_of_two_classes_labels_and_numbers():
    texts = [f"{'red' if n % 2 else 'green'} {'late' if n % 3 else 'early'} it" for n in range(60)]
    both = texts, [n % 2 for n in range(60)]
    assert score("class", 2, both, both)["rows"][1]["metrics"]["accuracy"] == 1.0
    several = texts, [tuple(i for i, on in enumerate((n % 2, n % 3)) if on) for n in range(60)]
    constant, linear = score("multi_label", 2, several, several)["rows"]
    assert linear["metrics"] == {"micro_f1": 1.0, "macro_f1": 1.0}
    assert 0 < constant["metrics"]["micro_f1"] < 1
    numbers = texts, [float(10 * (n % 2)) for n in range(60)]
    mean, ridge = score("number", 0, numbers, numbers)["rows"]
    assert mean["metrics"]["rmse"] == pytest.approx(5.0)
    assert ridge["metrics"]["rmse"] < 1 and ridge["metrics"]["pearson"] > 0.99


def test_without_scikit_learn_the_constant_is_left_and_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.feature_extraction", None)
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    found = score("class", 3, words(30), words(30))
    assert [row["name"] for row in found["rows"]] == ["majority class"]
    assert "pip install 'etude[text]'" in found["note"]


def test_a_model_that_is_no_better_is_told_so():
    found = score("class", 3, words(120), words(60, seed=1))
    metrics = [ACCURACY, MACRO_F1]
    worse = beside_model(found, {"accuracy": 0.9, "macro_f1": 0.9}, metrics)
    assert worse["verdict"] == (
        "The tuned model is not better than TF-IDF + logistic regression: accuracy 90.0 % "
        "against 100.0 %."
    )
    assert [row["name"] for row in worse["rows"]][-1] == "this model"
    assert beside_model(found, {"accuracy": 1.01, "macro_f1": 1.0}, metrics)["verdict"] == ""


def test_outputs_equal_to_those_of_the_base_are_refused():
    base = Measurement(0.7, outputs_hash="a")
    require_effect(base, Measurement(0.7, outputs_hash="b"))
    require_effect(Measurement(0.7), Measurement(0.7))
    with pytest.raises(RunError, match="equal to the last bit with and without the adapter"):
        require_effect(base, Measurement(0.7, outputs_hash="a"))


def rows():
    return [
        {
            "text": f"{('good', 'bad')[n % 2]} {('film', 'room')[n // 2 % 2]}" + " very" * (n // 4),
            "label": ("positive", "negative")[n % 2],
        }
        for n in range(48)
    ]


def test_a_run_moves_its_new_head_by_its_own_rate(tiny_bert, tmp_path):
    from etude.tuning.adapters.read import read_adapter

    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows()), "utf-8")
    heads = []
    for ratio in (1.0, 4.0):
        fields = {
            "task": "text-classification",
            "model": {"id": str(tiny_bert), "dtype": "float32"},
            "adapter": {"rank": 2},
            "quant": {"kind": "none"},
            "data": {"train": str(data), "eval_fraction": 0.25, "max_length": 32},
            "train": {"max_steps": 1, "batch_samples": 8, "lr": 1e-3, "threads": 1},
        }
        fields["train"]["head_lr_ratio"] = ratio
        run = tune(Recipe.parse(fields), base=tmp_path / "runs")
        (head,) = read_adapter(run.folder / "adapter").modules.values()
        heads.append(head["bias"])  # begins at zero, and Adam's first step is its rate
    np.testing.assert_allclose(heads[1], 4 * heads[0], rtol=1e-4)
    assert abs(heads[0]).max() > 0


@pytest.fixture(scope="module")
def head_only(tiny_bert, tmp_path_factory):
    folder = tmp_path_factory.mktemp("head")
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows()), "utf-8")
    fields = {
        "name": "head",
        "task": "text-classification",
        "model": {"id": str(tiny_bert), "dtype": "float32"},
        "adapter": {"kind": "head"},
        "quant": {"kind": "none"},
        "data": {"train": str(data), "eval_fraction": 0.25, "max_length": 32},
        "train": {"epochs": 10, "batch_samples": 8, "micro_tokens": 256, "lr": 2e-2, "threads": 1},
        "objective": {"class_weights": "balanced", "focal_gamma": 1.0},
    }
    fields["train"]["sampling"] = "balanced"
    return tune(Recipe.parse(fields), base=folder / "runs")


def test_a_head_alone_is_trained_and_opens_in_peft(head_only, tiny_bert):
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    summary = head_only.summary
    assert summary["method"] == "head"
    assert summary["trainable_parameters"] == 2 * 32 + 2
    assert summary["memory_estimate"]["method"] == "head"
    losses = [r["loss"] for r in RunFolder.open(head_only.folder).read_metrics() if "loss" in r]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    base = AutoModelForSequenceClassification.from_pretrained(tiny_bert, num_labels=2)
    model = PeftModel.from_pretrained(base, str(head_only.folder / "adapter")).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    texts = ["good film very", "bad room"]
    with torch.no_grad():
        logits = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits
    found = [list(one.probabilities.values()) for one in load(head_only.folder).predict(texts)]
    np.testing.assert_allclose(found, logits.softmax(1), rtol=1e-4, atol=1e-6)
    measured = evaluate_run(RunFolder.open(head_only.folder), base=True)
    assert measured["tuned"]["accuracy"] == summary["accuracy"]


def test_an_adapter_that_is_not_active_is_no_evaluation(head_only, tiny_bert, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    from etude.tuning.config.sections.model import ModelSpec
    from etude.tuning.config.sections.quant import QuantSpec
    from etude.tuning.models.heads import Head
    from etude.tuning.models.load import load_model

    copy = tmp_path / "copy"
    shutil.copytree(head_only.folder, copy)
    head = Head("sequence-classification", ("negative", "positive"))
    spec = ModelSpec(id=str(tiny_bert), dtype="float32", device="cpu")
    new = load_model(spec, QuantSpec(kind="none"), head=head).model.state_dict()
    weights = copy / "adapter" / "adapter_model.safetensors"
    untrained = {name: new[name.removeprefix("base_model.model.")] for name in load_file(weights)}
    save_file(untrained, weights)
    with pytest.raises(RunError, match="equal to the last bit with and without the adapter"):
        evaluate_run(RunFolder.open(copy), base=True)


def test_baselines_are_in_the_outcome_and_the_report(head_only):
    from io import StringIO

    from rich.console import Console

    from etude.tuning.report.outcome import print_outcome

    text = StringIO()
    print_outcome(head_only.folder, show=0, console=Console(file=text, width=120))
    assert "baseline  majority class: accuracy" in text.getvalue()
    assert "baseline  TF-IDF + logistic regression: accuracy" in text.getvalue()
    page = (head_only.folder / "report.html").read_text("utf-8")
    for title in ("Beside simple baselines", "Reliability", "Precision and recall", "By class"):
        assert title in page
    notes = json.loads((head_only.folder / "data.json").read_text("utf-8"))["notes"]
    assert any("weights in the loss" in note and "positive 1" in note for note in notes)


def test_details_are_the_figures_of_scikit_learn(head_only):
    from sklearn import metrics as theirs

    folder = RunFolder.open(head_only.folder)
    details = folder.read_json("details.json")
    samples = folder.read_samples()
    truth = [sample["reference"] for sample in samples]
    predictor = load(folder)
    shares = [
        prediction.probabilities
        for prediction in predictor.predict([sample["prompt"] for sample in samples])
    ]
    predicted = [max(one, key=one.get) for one in shares]
    assert predicted == [sample["after"] for sample in samples]
    found = theirs.precision_recall_fscore_support(
        truth, predicted, labels=["negative", "positive"], zero_division=0
    )
    for name, values in zip(("precision", "recall", "f1", "support"), found, strict=True):
        np.testing.assert_allclose(details["per_class"][name], values)
    positive = [one["positive"] for one in shares]
    wanted = theirs.average_precision_score([label == "positive" for label in truth], positive)
    assert details["precision_recall"]["average_precision"] == pytest.approx(wanted, abs=1e-6)
    wrong = [i for i, label in enumerate(truth) if label != predicted[i]]
    wrong.sort(key=lambda i: -max(shares[i].values()))
    listed = [row["origin"] for row in details["worst_errors"]["rows"]]
    assert listed == [samples[i]["origin"] for i in wrong]


def test_a_head_alone_needs_a_head():
    with pytest.raises(RecipeError, match="and chat has none; name modules"):
        Recipe.parse({"data": {"train": "x"}, "adapter": {"kind": "head"}})
    with pytest.raises(RecipeError, match=r"adapter.init is for adapter.kind: lora"):
        Recipe.parse(
            {
                "task": "text-classification",
                "data": {"train": "x"},
                "adapter": {"kind": "head", "init": "pissa"},
            }
        )


@pytest.mark.parametrize("peft_kind", ["lora", "full_rank_head"])
def test_an_adapter_with_a_head_that_peft_saved_computes_the_same_here(
    peft_kind, tiny_bert, tmp_path
):
    from peft import LoraConfig, TaskType, get_peft_model
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from etude.tuning.adapters.save import load_adapter
    from etude.tuning.config.sections.model import ModelSpec
    from etude.tuning.config.sections.quant import QuantSpec
    from etude.tuning.models.heads import Head
    from etude.tuning.models.load import load_model

    torch.manual_seed(0)
    base = AutoModelForSequenceClassification.from_pretrained(tiny_bert, num_labels=3)
    targets = ["query", "value"] if peft_kind == "lora" else "all-linear"
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS, r=4, target_modules=targets, init_lora_weights=False
    )
    theirs = get_peft_model(base, config)
    for name, parameter in theirs.named_parameters():
        if "modules_to_save" in name:
            torch.nn.init.normal_(parameter)
    theirs.eval().save_pretrained(tmp_path / "peft")
    head = Head("sequence-classification", ("a", "b", "c"))
    spec = ModelSpec(id=str(tiny_bert), dtype="float32", device="cpu")
    loaded = load_model(spec, QuantSpec(kind="none"), head=head)
    load_adapter(loaded.model, tmp_path / "peft")
    from etude.app.predict import plan_predictions, predictions

    file = tmp_path / "texts.txt"
    file.write_text("good film\nbad\n", "utf-8")
    job = plan_predictions(str(tmp_path / "peft"), file)
    commanded = [one.prediction.probabilities for one in predictions(job)]
    tokens = AutoTokenizer.from_pretrained(tiny_bert)(["good film", "bad"], padding=True)
    tokens = {name: torch.tensor(value) for name, value in tokens.items()}
    with torch.no_grad():
        wanted = theirs(**tokens).logits
        # float32, the adapter computed in another order of sums.
        torch.testing.assert_close(
            loaded.model.eval()(**tokens).logits, wanted, rtol=1e-5, atol=1e-5
        )
    assert list(commanded[0]) == ["LABEL_0", "LABEL_1", "LABEL_2"]
    found = [list(one.values()) for one in commanded]
    np.testing.assert_allclose(found, wanted.softmax(1), rtol=1e-4, atol=1e-5)


def test_a_kind_of_head_that_is_not_known_is_refused(tmp_path):
    from etude.tuning.tasks.base import TaskRecord
    from etude.tuning.tasks.text_classification import TextClassification

    record = TaskRecord("text-classification", ("a", "b"), {"kind": "ordinal"})
    with pytest.raises(AdapterError, match=r"task.json"):
        TextClassification().saved_head(record)
