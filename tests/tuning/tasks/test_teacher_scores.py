"""Teacher scores on disk: complete after a kill, of these data only, and no teacher in the run."""

from __future__ import annotations

import errno
import json
import shutil

import numpy as np
import pytest

from etude.core.errors import DataError, RecipeError, RunError
from etude.tuning.callbacks import Callback
from etude.tuning.config.recipe import Recipe
from etude.tuning.data import score_store
from etude.tuning.data.score_store import ScoreStore
from etude.tuning.memory.fit import estimate_recipe
from etude.tuning.memory.model_configs import open_outline
from etude.tuning.pipeline import tune
from etude.tuning.runs.folder import RunFolder

pytestmark = pytest.mark.integration

WORDS = ("film", "parcel", "room", "red", "green", "cat", "dog")


class Told(Callback):
    """What a run said."""

    def __init__(self):
        self.text = ""

    def on_message(self, message):
        self.text += message


def run_of(fields, base, *callbacks):
    return tune(Recipe.parse(fields), base=base, callbacks=callbacks)


def losses(run):
    return [r["loss"] for r in RunFolder.open(run.folder).read_metrics() if "loss" in r]


@pytest.fixture(autouse=True)
def small_files(monkeypatch):
    """Several files for the few rows of these tests."""
    monkeypatch.setattr(score_store, "_POSITIONS", 64)


@pytest.fixture(scope="module")
def teacher(tiny_llama):
    return tiny_llama(seed=1, layers=3)


def fields_of(tiny_recipe, teacher, scores, *, train=None, **objective):
    return tiny_recipe(
        objective={
            "kind": "distill",
            "teacher": str(teacher),
            "label_weight": 0.25,
            **({} if scores is None else {"teacher_scores": str(scores)}),
            **objective,
        },
        train={"max_steps": 3, "micro_tokens": 2048, **(train or {})},
    )


@pytest.mark.parametrize("divergence", ["forward_kl", "reverse_kl", "jsd"])
def test_all_words_stored_train_as_the_teacher_itself(tiny_recipe, teacher, tmp_path, divergence):
    """But for 16 bits a log-probability; every word of the tokenizer is stored."""
    live = run_of(fields_of(tiny_recipe, teacher, None, divergence=divergence), tmp_path / "live")
    options = {"divergence": divergence, "scores_per_position": 60_000}
    stored = run_of(
        fields_of(tiny_recipe, teacher, tmp_path / "scores", **options), tmp_path / "stored"
    )
    assert losses(stored) == pytest.approx(losses(live), rel=2e-4)
    # Evaluations have no teacher to compare with, and the same loss of the labels.
    assert "teacher_kl" in live.summary and "teacher_kl" not in stored.summary
    assert stored.summary["eval_loss_before"] == pytest.approx(
        live.summary["eval_loss_before"], rel=1e-6
    )


def test_scores_that_are_there_are_used_and_the_teacher_is_not_loaded(
    tiny_recipe, teacher, tmp_path, monkeypatch
):
    scores = tmp_path / "scores"
    fields = fields_of(tiny_recipe, teacher, scores, scores_per_position=8)
    first = run_of(fields, tmp_path / "first")

    def refuse(*_):
        raise AssertionError("the teacher is not to be loaded")

    monkeypatch.setattr("etude.tuning.distillation._other", refuse)
    told = Told()
    again = run_of(fields, tmp_path / "again", told)
    assert losses(again) == losses(first)
    for words in ("the 8 likeliest of", "% of the mass", "bytes a position"):
        assert words in told.text


@pytest.mark.parametrize("kind", ["top_k", "sampled"])
def test_a_killed_process_is_followed_by_one_that_stores_the_same(
    tiny_recipe, teacher, tmp_path, monkeypatch, kind
):
    scores = tmp_path / "scores"
    fields = fields_of(tiny_recipe, teacher, scores, scores_kind=kind, scores_per_position=8)
    run_of(fields, tmp_path / "runs")
    whole = {file.name: file.read_bytes() for file in scores.iterdir() if file.name != ".lock"}
    assert sum(name.startswith("scores-") for name in whole) > 3
    for name in ("scores-00001.npy", "scores-00003.npy"):
        (scores / name).unlink()
    # What a killed process was writing.
    (scores / ".scores-00001.npy.x1").write_bytes(b"half")
    made = []
    write = ScoreStore.write
    monkeypatch.setattr(
        ScoreStore,
        "write",
        lambda self, number, rows: (made.append(number), write(self, number, rows)),
    )
    run_of(fields, tmp_path / "runs")
    assert made == [1, 3]
    found = {file.name: file.read_bytes() for file in scores.iterdir() if file.name != ".lock"}
    assert found == whole


def test_numpy_reads_what_is_stored(tiny_recipe, teacher, tmp_path):
    scores = tmp_path / "scores"
    run_of(fields_of(tiny_recipe, teacher, scores, scores_per_position=8), tmp_path / "runs")
    records = np.concatenate([np.load(file) for file in sorted(scores.glob("scores-*.npy"))])
    assert len(records) == np.load(scores / "samples.npy")["positions"].sum()
    mass = np.exp(records["log_p"].astype(np.float64)).sum(1) + np.exp(records["rest"])
    # Eight numbers of 11 bits.
    assert np.allclose(mass, 1, atol=2**-9)
    assert (np.diff(records["log_p"].astype(np.float64), axis=1) <= 0).all()


def test_scores_of_something_else_are_one_line(
    tiny_recipe, teacher, tiny_llama, tmp_path, write_jsonl
):
    scores = tmp_path / "scores"
    run_of(fields_of(tiny_recipe, teacher, scores, scores_per_position=8), tmp_path / "runs")

    def refused(error, message, fields):
        with pytest.raises(error, match=message) as caught:
            run_of(fields, tmp_path / "refused")
        assert "\n" not in str(caught.value)

    own = {"scores_per_position": 8}
    rows = [{"prompt": f"other {i}", "completion": "return 1"} for i in range(40)]
    other = fields_of(tiny_recipe, teacher, scores, **own)
    other["data"] = {**other["data"], "train": str(write_jsonl(rows, "other.jsonl"))}
    refused(DataError, r"of other data: [\d,]+ of [\d,]+ training samples have none", other)
    of_another = fields_of(tiny_recipe, tiny_llama(seed=2, layers=3), scores, **own)
    refused(DataError, "scores of another teacher", of_another)
    for key, value in (("scores_per_position", 9), ("teacher_temperature", 1.5)):
        fields = fields_of(tiny_recipe, teacher, scores, **{**own, key: value})
        refused(RecipeError, f"scores with objective.{key}", fields)
    fields = fields_of(tiny_recipe, teacher, scores, **own, scores_kind="sampled")
    refused(RecipeError, r"objective\.scores_kind top_k", fields)
    # What a file lacks is not read beyond its end.
    file = scores / "scores-00000.npy"
    file.write_bytes(file.read_bytes()[:-100])
    refused(
        DataError, "delete it, and it is made anew", fields_of(tiny_recipe, teacher, scores, **own)
    )


def test_a_full_disk_is_one_line_and_what_is_there_stays(
    tiny_recipe, teacher, tmp_path, monkeypatch
):
    scores = tmp_path / "scores"
    fields = fields_of(tiny_recipe, teacher, scores, scores_per_position=8)
    replace = score_store.replace_file
    written = []

    def full(file, write):
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(file)
        replace(file, write)

    monkeypatch.setattr(score_store, "replace_file", full)
    with pytest.raises(RunError, match=r"cannot store teacher scores in .*: the disk is full"):
        run_of(fields, tmp_path / "runs")
    assert len(list(scores.glob("scores-*.npy"))) == 2
    monkeypatch.setattr(score_store, "replace_file", replace)
    assert run_of(fields, tmp_path / "runs").state == "finished"


def test_a_step_of_stored_scores_is_the_same_in_one_pass_or_in_many(tiny_recipe, teacher, tmp_path):
    found = []
    for micro_tokens in (32, 2048):
        train = {"batch_samples": 16, "micro_tokens": micro_tokens}
        fields = fields_of(
            tiny_recipe, teacher, tmp_path / "scores", train=train, scores_per_position=8
        )
        found.append(losses(run_of(fields, tmp_path / str(micro_tokens))))
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_the_estimate_counts_no_teacher_whose_scores_are_stored(tiny_llama, tmp_path):
    found = []
    for scores in (None, str(tmp_path / "scores")):
        objective = {"kind": "distill", "teacher": "self", "teacher_scores": scores}
        recipe = Recipe.parse(
            {
                "model": {"id": str(tiny_llama())},
                "quant": {"kind": "nf4"},
                "objective": objective,
                "data": {"train": "-"},
            }
        )
        with open_outline(recipe.model) as outline:
            found.append(estimate_recipe(recipe, outline))
    live, stored = found
    assert stored.parts["weights"] < live.parts["weights"]
    assert any("teacher-scores" in note for note in stored.notes)


def test_the_command_stores_what_runs_use(tiny_recipe, teacher, tmp_path, etude_command):
    fields = fields_of(tiny_recipe, teacher, None)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(Recipe.parse(fields).to_yaml())
    options = ["--out", tmp_path / "scores", "--set", "objective.scores_per_position=8"]
    stored = json.loads(etude_command("teacher-scores", recipe, *options, "--json").stdout)
    assert stored["per_position"] == 8 and 0 < stored["covered"] < 1
    assert stored["bytes"] == sum(f.stat().st_size for f in (tmp_path / "scores").glob("[!.]*"))
    told = etude_command("teacher-scores", recipe, *options).stdout
    assert "8 likeliest words of" in told and "covered mass" in told
    shutil.rmtree(tmp_path / "scores")
    without = etude_command("teacher-scores", recipe)
    assert without.returncode == 2 and "names no folder for the scores" in without.stderr


def test_a_classifier_learns_from_stored_scores_of_a_run(classifier_fields, write_jsonl, tmp_path):
    rows = [
        {"text": f"{word} {WORDS[i % 7]}", "label": label}
        for i in range(30)
        for word, label in zip(["good", "bad", "fine", "late"], "abab", strict=True)
    ]
    data = write_jsonl(rows)
    taught_by = run_of(classifier_fields(data), tmp_path / "runs")
    found = []
    for scores in (None, str(tmp_path / "scores")):
        objective = {
            "kind": "distill",
            "teacher": str(taught_by.folder),
            "label_weight": 0.0,
            "teacher_scores": scores,
        }
        fields = classifier_fields(data, objective=objective, train={"max_steps": 4})
        found.append(losses(run_of(fields, tmp_path / "runs")))
    # Two classes are all of them, in 16 bits.
    assert found[1] == pytest.approx(found[0], rel=2e-3)
    # An adapter that was trained on is another teacher.
    weights = taught_by.folder / "adapter" / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    with pytest.raises(DataError, match="scores of another teacher"):
        run_of(fields, tmp_path / "runs")


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ({"teacher_scores": "x"}, "teacher_scores is for objective.kind: distill"),
        (
            {"kind": "distill", "teacher": "x", "scores_per_position": 9},
            "scores_per_position is for objective.teacher_scores",
        ),
        (
            {
                "kind": "distill",
                "teacher": "x",
                "teacher_scores": "y",
                "scores_kind": "sampled",
                "divergence": "jsd",
            },
            "sampled estimates the forward KL, not jsd",
        ),
    ],
)
def test_what_cannot_be_stored_is_one_line(objective, message):
    with pytest.raises(RecipeError, match=message):
        Recipe.parse({"objective": objective, "data": {"train": "-"}})


def test_an_unknown_version_of_scores_is_refused(tmp_path):
    with pytest.raises(DataError, match="has no teacher scores"):
        ScoreStore(tmp_path)
    (tmp_path / "about.json").write_text("{}")
    np.save(tmp_path / "samples.npy", np.zeros(1))
    with pytest.raises(DataError, match="cannot be read"):
        ScoreStore(tmp_path)
