"""Text classification on MiniLM's real weights: it learns, saves its head, and opens in PEFT."""

from __future__ import annotations

import json

import pytest
import torch

from etude.core.errors import AdapterError, DataError, RecipeError, RunError
from etude.tuning.config.recipe import Recipe
from etude.tuning.evaluation import evaluate_run
from etude.tuning.pipeline import tune
from etude.tuning.predictor import load
from etude.tuning.runs.folder import RunFolder
from etude.tuning.tasks.base import TaskRecord
from etude.tuning.tasks.registry import task_named

GOOD = ("a wonderful film", "i loved every minute", "brilliant acting", "a joy to watch")
BAD = ("a dreadful film", "i hated every minute", "wooden acting", "a chore to watch")
PRAISE = "a joy to watch, the cast above all (8)"
BLAME = "wooden acting, the script above all (9)"
TOPICS = ("the plot", "the music", "the ending", "the cast", "the script")


def reviews(path, *, count=96, labels=("negative", "positive")):
    """Write short reviews, all different, a third of them negative."""
    rows = []
    for number in range(count):
        good = number % 3 > 0
        opinion = (GOOD if good else BAD)[number % 4]
        topic = TOPICS[number % 5]
        rows.append({"text": f"{opinion}, {topic} above all ({number})", "label": labels[good]})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture(scope="module")
def minilm():
    from etude.tuning.models.pull import pull

    return pull("minilm")


def fields(data, model, **sections):
    base = {
        "name": "reviews",
        "task": "text-classification",
        "model": {"id": str(model), "dtype": "float32"},
        "adapter": {"rank": 8, "alpha": 16},
        "quant": {"kind": "none"},
        "data": {"train": str(data), "eval_fraction": 0.25, "max_length": 64},
        "train": {
            "epochs": 4,
            "batch_samples": 16,
            "micro_tokens": 1024,
            "lr": 2e-3,
            "threads": 1,
        },
    }
    for name, section in sections.items():
        base[name] = {**base[name], **section} if isinstance(section, dict) else section
    return base


@pytest.fixture(scope="module", params=["none", "nf4"])
def run(request, minilm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reviews")
    recipe = fields(reviews(folder / "rows.jsonl"), minilm, quant={"kind": request.param})
    return tune(Recipe.parse(recipe), base=folder / "runs")


def test_a_classifier_learns_and_says_what_it_measured(run):
    summary = run.summary
    assert summary["task"] == "text-classification"
    assert [m["name"] for m in summary["metrics"]] == ["eval_loss", "accuracy", "macro_f1"]
    assert summary["accuracy"] == 1.0 > summary["accuracy_before"]
    assert summary["macro_f1"] == 1.0
    assert summary["eval_loss"] < 0.3 < summary["eval_loss_before"]
    totals = json.loads((run.folder / "data.json").read_text("utf-8"))["totals"]
    assert totals["class negative"] + totals["class positive"] == totals["training samples"]
    page = (run.folder / "report.html").read_text("utf-8")
    assert "Accuracy" in page
    assert "Macro-F1" in page
    assert "ROUGE" not in page
    samples = RunFolder.open(run.folder).read_samples()
    assert {sample["after"] for sample in samples} == {"negative", "positive"}
    assert all(sample["score_after"] == 100.0 for sample in samples)


def test_what_was_saved_predicts_the_same_and_evaluates_the_same(run):
    predictor = load(run.folder)
    predictions = predictor.predict([PRAISE, BLAME])
    assert [prediction.text for prediction in predictions] == ["positive", "negative"]
    for prediction in predictions:
        assert sum(prediction.probabilities.values()) == pytest.approx(1.0, abs=1e-6)
    measured = evaluate_run(RunFolder.open(run.folder), base=True)
    assert measured["tuned"]["loss"] == pytest.approx(run.summary["eval_loss"], rel=1e-5)
    assert measured["tuned"]["accuracy"] == run.summary["accuracy"]
    assert measured["base"]["accuracy"] < 1.0


def test_rows_are_packed_or_padded_as_the_recipe_says_and_the_classes_are_the_same(run):
    predictor = load(run.folder)
    task = task_named("text-classification")
    texts = [PRAISE, BLAME, "wooden"]
    shares = []
    for packing in (True, False):
        data = predictor.recipe.data.model_copy(update={"packing": packing})
        recipe = predictor.recipe.model_copy(update={"data": data})
        assert task.layout(recipe, predictor.loaded).packed == packing
        found = task.predict(predictor.loaded, predictor.encoder, texts, recipe)
        shares.append(torch.tensor([list(one.probabilities.values()) for one in found]))
    # float32 throughout; attention is summed in another order, and padding is masked.
    torch.testing.assert_close(*shares, rtol=1e-4, atol=1e-5)


def test_the_adapter_with_its_head_opens_in_transformers_and_peft(run, minilm):
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    if run.summary["method"] != "lora":
        pytest.skip("the base that PEFT loads is not quantised")
    config = json.loads((run.folder / "adapter" / "adapter_config.json").read_text("utf-8"))
    assert config["task_type"] == "SEQ_CLS"
    assert config["modules_to_save"] == ["classifier"]
    record = TaskRecord.read(run.folder / "adapter")
    assert record == TaskRecord("text-classification", ("negative", "positive"))
    base = AutoModelForSequenceClassification.from_pretrained(minilm, num_labels=2)
    model = PeftModel.from_pretrained(base, str(run.folder / "adapter")).eval()
    tokenizer = AutoTokenizer.from_pretrained(minilm)
    texts = [PRAISE, BLAME]
    predictions = load(run.folder).predict(texts)
    with torch.no_grad():
        logits = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits
    expected = logits.softmax(dim=1)
    found = torch.tensor([list(p.probabilities.values()) for p in predictions])
    # float32 throughout; the adapter is computed beside the base in another order of sums.
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_stopped_run_resumes_to_the_same_curve(minilm, tmp_path):
    data = reviews(tmp_path / "rows.jsonl", count=48)
    train = {"epochs": 2, "save_every": 1}
    recipe = Recipe.parse(fields(data, minilm, train=train))
    whole = tune(recipe, base=tmp_path / "whole")
    part = tune(recipe, base=tmp_path / "part")
    folder = RunFolder.open(part.folder)
    last = sorted(folder.checkpoints.glob("step-*.pt"))[-1]
    last.unlink()
    with folder:
        folder.set_state("stopped", "for the test")
    resumed = tune(recipe, resume=RunFolder.open(part.folder))
    losses = [
        [r["loss"] for r in RunFolder.open(one.folder).read_metrics() if "loss" in r]
        for one in (whole, resumed)
    ]
    assert losses[0] == losses[1]
    assert resumed.summary["eval_loss"] == whole.summary["eval_loss"]


def test_full_fine_tuning_saves_a_classifier_that_transformers_opens(minilm, tmp_path):
    from transformers import pipeline

    data = reviews(tmp_path / "rows.jsonl")
    recipe = fields(data, minilm, adapter={"kind": "full"}, train={"lr": 3e-4, "epochs": 6})
    run = tune(Recipe.parse(recipe), base=tmp_path / "runs")
    assert run.summary["accuracy"] == 1.0
    classify = pipeline("text-classification", model=str(run.folder / "model"))
    assert classify(PRAISE)[0]["label"] == "positive"
    assert load(run.folder).predict([BLAME])[0].text == "negative"


def test_the_best_checkpoint_is_chosen_by_the_metric_that_is_named(minilm, tmp_path):
    data = reviews(tmp_path / "rows.jsonl", count=48)
    sections = {"train": {"epochs": 2, "eval_every": 1}, "eval": {"best_metric": "macro_f1"}}
    recipe = fields(data, minilm, train=sections["train"])
    recipe["eval"] = sections["eval"]
    run = tune(Recipe.parse(recipe), base=tmp_path / "runs")
    records = RunFolder.open(run.folder).read_metrics()
    best = max(r["eval_macro_f1"] for r in records if "eval_macro_f1" in r)
    assert run.summary["macro_f1"] == pytest.approx(best)
    recipe["eval"] = {"best_metric": "rouge"}
    with pytest.raises(
        RecipeError, match=r"compute 'rouge'.*they compute: loss, accuracy, macro_f1"
    ):
        tune(Recipe.parse(recipe), base=tmp_path / "runs")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"text": text, "label": "x"} for text in "abcd"],
            "every training row has the label 'x'",
        ),
        ([{"text": "a", "label": "x"}, {"text": " ", "label": "y"}], r":2: column 'text' is empty"),
        ([{"text": "a", "label": None}], r":1: column 'label' must hold a class label"),
        ([{"text": "a", "class": "x"}], r":1: .*'label'"),
        ([{"text": "a", "label": {"x": 1}}], r":1: column 'label' must hold a class label"),
    ],
)
def test_rows_that_cannot_be_classified_are_refused_by_name(minilm, tmp_path, rows, message):
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    recipe = fields(data, minilm)
    recipe["data"]["eval_fraction"] = 0.0
    recipe["data"]["eval"] = str(reviews(tmp_path / "eval.jsonl", count=4))
    with pytest.raises(DataError, match=message):
        tune(Recipe.parse(recipe), base=tmp_path / "runs")


def test_a_label_that_training_never_saw_is_named_with_its_rows(minilm, tmp_path):
    recipe = fields(reviews(tmp_path / "rows.jsonl", count=12), minilm)
    other = reviews(tmp_path / "eval.jsonl", count=4, labels=("negative", "positiv"))
    recipe["data"]["eval"] = str(other)
    with pytest.raises(DataError, match=r"no label 'positiv' \(did you mean 'positive'\?\): .*:2"):
        tune(Recipe.parse(recipe), base=tmp_path / "runs")


def test_without_its_head_or_its_classes_a_classifier_predicts_nothing(run, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(run.folder, copy)
    record = copy / "adapter" / "task.json"
    record.unlink()
    with pytest.raises(AdapterError, match="the class names of this classifier are missing"):
        load(copy)
    TaskRecord("text-classification", ("negative", "positive")).write(copy / "adapter")
    from safetensors.torch import load_file, save_file

    weights = copy / "adapter" / "adapter_model.safetensors"
    save_file({k: v for k, v in load_file(weights).items() if "classifier" not in k}, weights)
    with pytest.raises(AdapterError, match="classifier"):
        load(copy)


def test_a_classifier_does_not_converse(run):
    with pytest.raises(RunError, match="task: text-classification"):
        load(run.folder).reply("hello")
