"""The test set: not read in tuning, opened once, and on record."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from etude.core.errors import DataError, RecipeError, RunError
from etude.tuning.config.recipe import Recipe
from etude.tuning.final_test import final_test
from etude.tuning.pipeline import tune
from etude.tuning.runs.folder import RunFolder

ANIMALS = ("cat", "dog", "bird")
COLOURS = ("red", "green", "blue", "one", "two", "three")


def rows(colours=COLOURS, **more):
    return [
        {"text": f"the {colour} {animal} is {mood}", "label": mood, **more}
        for colour in colours
        for animal in ANIMALS
        for mood in ("good", "bad")
    ]


@pytest.fixture
def waiting(classifier_fields, write_jsonl, tmp_path):
    """A finished run whose test file was not there while it was trained."""
    lines = []
    test = tmp_path / "test.jsonl"
    fields = classifier_fields(write_jsonl(rows()), data={"test": str(test)}, train={"epochs": 2})
    from etude.tuning.callbacks import Callback

    class Listener(Callback):
        def on_message(self, text):
            lines.append(text)

    assert not test.exists()
    run = tune(Recipe.parse(fields), base=tmp_path / "runs", callbacks=[Listener()])
    assert [line for line in lines if "test.jsonl waits for `etude eval RUN --final`" in line]
    return RunFolder.open(run.folder), test


def test_the_test_set_is_opened_once_and_the_record_says_when_and_by_what(
    waiting, write_jsonl, etude_command
):
    folder, _ = waiting
    told = etude_command("eval", str(folder.path), "--final")
    assert told.returncode == 2 and "no data file at" in told.stderr
    assert not folder.test.exists()
    write_jsonl(rows(("four", "five")), "test.jsonl")
    told = etude_command("eval", str(folder.path), "--final")
    assert told.returncode == 0, told.stderr
    assert "the test set was opened on" in told.stdout
    record = json.loads(folder.test.read_text())
    (opening,) = record["openings"]
    assert re.fullmatch("[0-9a-f]{64}", opening["adapter"])
    result = opening["results"]["tuned"]
    assert result["samples"] == 12
    assert result["standard_errors"]["accuracy"] > 0 or result["accuracy"] in (0.0, 1.0)
    # Figures of the record, the report and `runs show` are the same.
    shown = f"{100 * result['accuracy']:.1f} %"
    page = folder.report.read_text()
    assert "The test set" in page and shown in page and opening["at"][:10] in page
    listed = etude_command("runs", "show", str(folder.path)).stdout
    assert f"test accuracy  {shown}" in listed and opening["adapter"][:12] in listed

    told = etude_command("eval", str(folder.path), "--final")
    assert told.returncode == 2
    assert f"opened on {opening['at'][:10]}" in told.stderr and "--again" in told.stderr
    assert json.loads(folder.test.read_text()) == record
    told = etude_command("eval", str(folder.path), "--final", "--again")
    assert told.returncode == 0 and "opened 2 times" in told.stdout
    again = json.loads(folder.test.read_text())
    assert again["openings"][0]["at"] == opening["at"]
    assert again["openings"][1]["results"]["tuned"]["loss"] == result["loss"]
    assert "Opened 2 times" in folder.report.read_text()


def test_test_rows_that_were_trained_or_chosen_by_are_counted(waiting, write_jsonl):
    folder, test = waiting
    split = {row["origin"] for row in folder.read_samples()}
    everything = rows()
    held = [everything[int(origin.rpartition(":")[2]) - 1] for origin in split]
    trained = [row for row in everything if row["text"] not in {one["text"] for one in held}]
    # The same text under another label is no new text.
    other = {"good": "bad", "bad": "good"}
    flipped = {**trained[0], "label": other[trained[0]["label"]]}
    write_jsonl([*rows(("four",)), flipped, *trained[1:3], *held[:2]], test.name)
    record = final_test(folder)
    assert (record["in_training"], record["in_evaluation"]) == (3, 2)
    page = folder.report.read_text()
    assert "3 of 11 test samples have their text in the training data, too" in page


def test_what_cannot_test_is_refused_and_nothing_is_recorded(
    waiting, write_jsonl, classifier_fields, tmp_path
):
    folder, test = waiting
    write_jsonl([{"text": "the cat sings", "label": "strange"}, *rows(("four",))], test.name)
    with pytest.raises(DataError, match="no label 'strange'"):
        final_test(folder)
    copied = rows()
    held = {row["origin"] for row in folder.read_samples()}
    trained = [row for n, row in enumerate(copied, 1) if f"rows.jsonl:{n}" not in held]
    write_jsonl(trained[:5], test.name)
    with pytest.raises(DataError, match=r"every sample of .* is in the training data"):
        final_test(folder)
    assert not folder.test.exists()
    for name in ("rows.jsonl", "../" + tmp_path.name + "/rows.jsonl"):
        fields = classifier_fields(tmp_path / "rows.jsonl", data={"test": str(tmp_path / name)})
        with pytest.raises(RecipeError, match=r"data\.test: .* is data\.train too"):
            Recipe.parse(fields)


def test_a_recipe_without_a_test_set_takes_a_file_and_others_tested_on_it_are_counted(
    waiting, write_jsonl, tmp_path
):
    folder, test = waiting
    other = RunFolder(folder.path.parent / "other-run")
    shutil.copytree(folder.path, other.path)
    recipe = Recipe.read_run(other.recipe)
    data = recipe.data.model_copy(update={"test": None})
    other.write_text("recipe.yaml", recipe.model_copy(update={"data": data}).to_yaml())
    write_jsonl(rows(("five",)), test.name)
    final_test(folder)
    with pytest.raises(RecipeError, match="names no test set"):
        final_test(other)
    with pytest.raises(RecipeError, match=r"is data\.train too"):
        final_test(other, data=tmp_path / "rows.jsonl")
    assert final_test(other, data=test)["elsewhere"] == [folder.name]
    assert "1 other runs" not in other.report.read_text()
    assert "Another run here was tested on the same rows" in other.report.read_text()
    with pytest.raises(RecipeError, match="omit --data"):
        final_test(folder, data=test)
    with pytest.raises(RunError, match="--again"):
        final_test(other, data=test)
