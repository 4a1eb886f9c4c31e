"""Runs that learn from a teacher: tokens and classes, who may teach whom, and exact resuming."""

from __future__ import annotations

import json
import shutil

import pytest

from etude.core.errors import ModelError, RecipeError, RunError
from etude.tuning.config.recipe import Recipe
from etude.tuning.evaluation import evaluate_run
from etude.tuning.pipeline import tune
from etude.tuning.predictor import load
from etude.tuning.runs.folder import RunFolder

pytestmark = pytest.mark.integration

WORDS = ("film", "parcel", "room", "red", "green", "cat", "dog")

SELF = {"kind": "distill", "teacher": "self"}


def run_of(fields, base):
    return tune(Recipe.parse(fields), base=base)


def records(run):
    return [r for r in RunFolder.open(run.folder).read_metrics() if "loss" in r]


def losses(run):
    return [record["loss"] for record in records(run)]


def stopped(run, step):
    folder = RunFolder.open(run.folder)
    for path in folder.checkpoints.glob("step-*.pt"):
        if int(path.stem.removeprefix("step-")) > step:
            path.unlink()
    folder.set_state("stopped", "as if killed")
    return RunFolder.open(run.folder)


@pytest.fixture(scope="module")
def quantised(tiny_recipe_in, tmp_path_factory):
    """A QLoRA student of its unquantised self, by forward KL alone."""
    folder = tmp_path_factory.mktemp("quantised")
    objective = {**SELF, "label_weight": 0.0, "teacher_temperature": 1.0}
    fields = tiny_recipe_in(folder)(
        quant={"kind": "nf4"}, objective=objective, train={"epochs": 3, "lr": 3e-3}
    )
    return run_of(fields, folder / "runs"), fields, folder


def test_a_quantised_student_comes_nearer_to_its_unquantised_self(quantised):
    run, _, _ = quantised
    assert 0 < run.summary["teacher_kl"] < 0.7 * run.summary["teacher_kl_before"]
    assert run.summary["objective"] == "distill"
    # Of forward KL alone, the loss of a step is the divergence that it records.
    for record in records(run):
        assert record["loss"] == pytest.approx(record["divergence"], rel=1e-5)


def test_it_resumes_to_the_same_losses_and_not_with_another_teacher(quantised, tmp_path):
    run, _, _ = quantised
    folder = tmp_path / "copied"
    shutil.copytree(run.folder, folder)
    copied = type(run)(folder, run.state, run.summary)
    whole = losses(copied)
    again = tune(Recipe.read_run(folder / "recipe.yaml"), resume=stopped(copied, 12))
    assert losses(again) == whole
    teacher = json.loads((folder / "teacher.json").read_text())
    (folder / "teacher.json").write_text(json.dumps({**teacher, "fingerprint": "0" * 64}))
    with pytest.raises(RunError, match=r"teacher's weights .* differ from those"):
        tune(Recipe.read_run(folder / "recipe.yaml"), resume=stopped(again, 12))


def test_a_run_of_it_is_evaluated_without_its_teacher(quantised):
    run, _, _ = quantised
    found = evaluate_run(RunFolder.open(run.folder), generate=0)
    assert found["tuned"]["loss"] == pytest.approx(run.summary["eval_loss"], rel=1e-5)
    assert "teacher_kl" not in found["tuned"]


@pytest.mark.parametrize("divergence", ["forward_kl", "reverse_kl", "jsd"])
def test_a_step_is_the_same_in_one_pass_or_in_many(tiny_recipe, tmp_path, divergence):
    """The sum is over the trained tokens of the whole step, whatever the passes."""
    objective = {**SELF, "divergence": divergence, "label_weight": 0.25}
    found = []
    for micro_tokens in (32, 2048):
        fields = tiny_recipe(
            adapter={"init": "orthogonal"},
            quant={"kind": "nf4"},
            objective=objective,
            train={"max_steps": 3, "batch_samples": 16, "micro_tokens": micro_tokens},
        )
        found.append(records(run_of(fields, tmp_path / str(micro_tokens))))
    for one, other in zip(*found, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)


def test_packed_and_padded_rows_are_distilled_alike(tiny_recipe, tmp_path):
    found = []
    for packing in (True, False):
        fields = tiny_recipe(
            data={"packing": packing},
            quant={"kind": "nf4"},
            objective=SELF,
            train={"max_steps": 3, "micro_tokens": 2048},
        )
        found.append(records(run_of(fields, tmp_path / str(packing))))
    for one, other in zip(*found, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)


def test_evaluations_report_the_loss_of_the_labels_as_without_a_teacher(tiny_recipe, tmp_path):
    plain = run_of(tiny_recipe(train={"max_steps": 2}), tmp_path / "plain")
    taught = run_of(tiny_recipe(objective=SELF, train={"max_steps": 2}), tmp_path / "taught")
    assert taught.summary["eval_loss_before"] == pytest.approx(
        plain.summary["eval_loss_before"], rel=1e-6
    )
    # Its adapter disabled, the model is its own teacher: no second one, no divergence at first.
    assert taught.summary["teacher_kl_before"] == pytest.approx(0, abs=1e-9)
    assert not (taught.folder / "teacher.json").exists()
    assert (
        "teacher_kl" in (taught.folder / "report.html").read_text()
        or "KL from the" in (taught.folder / "report.html").read_text()
    )


def test_another_model_teaches_if_its_tokens_are_the_same(tiny_recipe, tiny_llama, tmp_path):
    fields = tiny_recipe(
        objective={
            "kind": "distill",
            "teacher": str(tiny_llama(seed=1, layers=3)),
            "label_weight": 0.0,
        },
        train={"epochs": 4, "lr": 1e-2},
    )
    apart = [record["divergence"] for record in records(run_of(fields, tmp_path))]
    assert sum(apart[-5:]) < 0.95 * sum(apart[:5])


def test_a_teacher_with_other_tokens_is_refused(tiny_recipe, tiny_llama, tmp_path):
    teacher = tiny_llama(seed=1)
    file = teacher / "tokenizer.json"
    text = json.loads(file.read_text())
    words = text["model"]["vocab"]
    a, b = list(words)[300:302]
    words[a], words[b] = words[b], words[a]
    file.write_text(json.dumps(text))
    fields = tiny_recipe(objective={"kind": "distill", "teacher": str(teacher)})
    with pytest.raises(ModelError, match=r"of which 4 differ; a teacher needs the student's"):
        run_of(fields, tmp_path)


def test_a_classifier_learns_the_classes_of_a_run(classifier_fields, write_jsonl, tmp_path):
    words = "good bad fine late"
    rows = [
        {"text": f"{word} {WORDS[i % 7]}", "label": label}
        for i in range(60)
        for word, label in zip(words.split(), ("a", "b", "a", "b"), strict=True)
    ]
    data = write_jsonl(rows)
    teacher = run_of(classifier_fields(data), tmp_path / "runs")
    fields = classifier_fields(
        data,
        objective={"kind": "distill", "teacher": str(teacher.folder), "label_weight": 0.0},
    )
    student = run_of(fields, tmp_path / "runs")
    # On what it is trained on: what two models make of words that neither has seen differs.
    apart = [record["divergence"] for record in records(student)]
    assert sum(apart[-5:]) < 0.9 * sum(apart[:5])
    assert student.summary["teacher_kl"] > 0
    assert {"accuracy", "macro_f1", "eval_loss"} <= student.summary.keys()
    other = write_jsonl([{**row, "label": row["label"].upper()} for row in rows], "other.jsonl")
    fields = classifier_fields(other, objective={"kind": "distill", "teacher": str(teacher.folder)})
    with pytest.raises(ModelError, match="has the classes a, b, the student A, B"):
        run_of(fields, tmp_path / "runs")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"objective": {"kind": "distill"}}, "needs objective.teacher"),
        ({"objective": {"teacher": "self"}}, "objective.teacher is for objective.kind: distill"),
        ({"objective": {**SELF, "jsd_beta": 0.2}}, "jsd_beta is for objective.divergence: jsd"),
        ({"objective": SELF, "task": "embedding"}, "not embedding"),
        ({"objective": SELF, "task": "text-classification"}, "has no trained head"),
        (
            {"objective": SELF, "adapter": {"kind": "full"}, "quant": {"kind": "none"}},
            "overwritten by full fine-tuning",
        ),
        (
            {
                "objective": {"kind": "distill", "teacher": "x", "focal_gamma": 1.0},
                "task": "text-classification",
            },
            "takes the labels as they are",
        ),
    ],
)
def test_what_cannot_be_distilled_is_one_line(fields, message):
    with pytest.raises(RecipeError) as caught:
        Recipe.parse(fields)
    assert message in str(caught.value)


def test_a_student_that_begins_as_its_teacher_has_nothing_to_learn(tiny_recipe, tmp_path):
    fields = tiny_recipe(objective={**SELF, "label_weight": 0.0})
    with pytest.raises(RecipeError, match="begins as its teacher, so there is nothing to learn"):
        run_of(fields, tmp_path)


@pytest.fixture(scope="module")
def matched(tiny_recipe_in, tiny_llama, tmp_path_factory):
    """A student of two layers beside a wider teacher of four."""
    folder = tmp_path_factory.mktemp("matched")
    teacher = tiny_llama(seed=1, layers=4, hidden_size=96, num_attention_heads=6)
    objective = {
        "kind": "distill",
        "teacher": str(teacher),
        "label_weight": 0.0,
        "hidden_weight": 2.0,
    }
    fields = tiny_recipe_in(folder)(objective=objective, train={"epochs": 3, "lr": 5e-3})
    return run_of(fields, folder / "runs")


def test_states_come_nearer_to_the_teachers_and_their_projection_is_not_saved(matched):
    from safetensors import safe_open

    apart = [record["hidden_states"] for record in records(matched)]
    assert sum(apart[-5:]) < 0.7 * sum(apart[:5])
    for record in records(matched):
        # T² of the recipe's T = 2.
        expected = 4 * record["divergence"] + record["hidden_states"]
        assert record["loss"] == pytest.approx(expected, rel=1e-5)
    with safe_open(matched.folder / "adapter" / "adapter_model.safetensors", "pt") as file:
        assert all("lora_" in name for name in file.keys())  # noqa: SIM118 - no mapping
    assert evaluate_run(RunFolder.open(matched.folder), generate=0)["tuned"]["loss"] == (
        pytest.approx(matched.summary["eval_loss"], rel=1e-5)
    )


def test_a_run_with_projections_resumes_to_the_same_losses(matched, tmp_path):
    folder = tmp_path / "copied"
    shutil.copytree(matched.folder, folder)
    copied = type(matched)(folder, matched.state, matched.summary)
    whole = losses(copied)
    assert (
        losses(tune(Recipe.read_run(folder / "recipe.yaml"), resume=stopped(copied, 12))) == whole
    )


def test_states_of_a_step_are_the_same_in_one_pass_or_in_many(tiny_recipe, tiny_llama, tmp_path):
    teacher = tiny_llama(seed=1, layers=3)
    objective = {"kind": "distill", "teacher": str(teacher), "hidden_weight": 1.0}
    found = []
    for micro_tokens, packing in ((32, True), (2048, True), (2048, False)):
        fields = tiny_recipe(
            data={"packing": packing},
            objective=objective,
            train={"max_steps": 3, "batch_samples": 16, "micro_tokens": micro_tokens},
        )
        found.append(losses(run_of(fields, tmp_path / f"{micro_tokens}-{packing}")))
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    assert found[2] == pytest.approx(found[1], rel=1e-4)


def test_a_classifiers_states_are_matched_with_those_of_a_run(
    classifier_fields, write_jsonl, tmp_path
):
    rows = [
        {"text": f"{word} {WORDS[i % 7]}", "label": label}
        for i in range(30)
        for word, label in zip(["good", "bad", "fine", "late"], "abab", strict=True)
    ]
    data = write_jsonl(rows)
    teacher = run_of(classifier_fields(data), tmp_path / "runs")
    objective = {"kind": "distill", "teacher": str(teacher.folder), "hidden_weight": 1.0}
    student = run_of(classifier_fields(data, objective=objective), tmp_path / "runs")
    apart = [record["hidden_states"] for record in records(student)]
    assert sum(apart[-5:]) < sum(apart[:5])


def test_a_cut_classifiers_adapter_opens_without_its_run(classifier_fields, write_jsonl, tmp_path):
    rows = [{"text": f"{w} {WORDS[i % 7]}", "label": w} for i in range(20) for w in ("good", "bad")]
    fields = classifier_fields(write_jsonl(rows), train={"max_steps": 2})
    fields["model"] = {**fields["model"], "keep_layers": [1]}
    run = run_of(fields, tmp_path / "runs")
    alone = shutil.copytree(run.folder / "adapter", tmp_path / "alone")
    texts = ["good film", "bad room"]
    found = [load(place).predict(texts) for place in (run.folder, alone)]
    assert len(load(alone).loaded.model.base_model.encoder.layer) == 1
    for one, other in zip(*found, strict=True):
        assert one.as_json() == other.as_json()
