"""What a run forgot, from the command line to the report."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch

from etude.core.errors import RunError
from etude.core.progress import SilentProgress
from etude.tuning.config.recipe import Recipe
from etude.tuning.forgetting import measure as measure_module
from etude.tuning.forgetting.measure import measure_forgetting
from etude.tuning.forgetting.passages import TOKENS, passages
from etude.tuning.forgetting.probe import Probe
from etude.tuning.models.heads import Head
from etude.tuning.pipeline import tune
from etude.tuning.predictor import load
from etude.tuning.report.details.forgetting import verdict
from etude.tuning.runs.folder import RunFolder


@pytest.fixture(autouse=True)
def own_home(monkeypatch, tmp_path):
    monkeypatch.setenv("ETUDE_HOME", str(tmp_path / "home"))


@pytest.fixture
def prose(tmp_path):
    file = tmp_path / "prose.txt"
    file.write_text(" ".join(f"the {word} of number {n}" for n in range(900) for word in ("key",)))
    return file


def test_perplexity_is_that_of_the_model_alone(tiny_recipe, tmp_path, prose):
    """Passages packed and scored by the trained weights, against transformers' own loss."""
    run = tune(Recipe.parse(tiny_recipe()), base=tmp_path / "runs")
    tuned = load(run.folder)
    probe = Probe(tuned.loaded, prose)
    scores = probe.measure(SilentProgress())
    for sample, nats in zip(probe.passages, scores.nats, strict=True):
        ids = torch.tensor(sample.input_ids[None], dtype=torch.long)
        with torch.no_grad():
            theirs = tuned.loaded.model(input_ids=ids, labels=ids).loss
        assert math.isclose(nats, float(theirs), rel_tol=1e-5)


def test_a_run_is_measured_and_its_base_asked_once(tiny_recipe, tmp_path, prose, monkeypatch):
    run = tune(Recipe.parse(tiny_recipe()), base=tmp_path / "runs")
    first = measure_forgetting(RunFolder(run.folder), text=prose)
    assert not first["base_kept"]
    asked = []
    monkeypatch.setattr(measure_module, "adapter_disabled", asked.append)
    second = measure_forgetting(RunFolder(run.folder), text=prose)
    assert second["base_kept"] and not asked
    assert second["changes"] == first["changes"]
    by_name = {change["name"]: change for change in first["changes"]}
    assert by_name["instructions"]["items"] == 100
    # Words are many tokens for this tiny tokenizer: some questions exceed a context of 512.
    left_out = 281 - by_name["questions"]["items"]
    assert 0 < left_out < 100
    assert first["notes"] == [
        f"questions longer than the model's context (512 tokens) are left out: {left_out}"
    ]
    # Trained hard on a few rows, a random model's loss on other text has changed for certain.
    assert by_name["prose"]["base"] != by_name["prose"]["tuned"]
    low, high = by_name["prose"]["low"], by_name["prose"]["high"]
    assert low <= by_name["prose"]["tuned"] - by_name["prose"]["base"] <= high


def test_other_text_and_other_quantisation_ask_the_base_anew(tiny_recipe, tmp_path, prose):
    run = tune(Recipe.parse(tiny_recipe()), base=tmp_path / "runs")
    measure_forgetting(RunFolder(run.folder), text=prose)
    assert not measure_forgetting(RunFolder(run.folder))["base_kept"]
    quantised = tune(Recipe.parse(tiny_recipe(quant={"kind": "int8"})), base=tmp_path / "quantised")
    assert not measure_forgetting(RunFolder(quantised.folder), text=prose)["base_kept"]


def test_after_full_fine_tuning_the_base_is_read_anew(tiny_recipe, tmp_path, prose):
    recipe = Recipe.parse(tiny_recipe(adapter={"kind": "full"}, train={"lr": 1e-3}))
    run = tune(recipe, base=tmp_path / "runs")
    record = measure_forgetting(RunFolder(run.folder), text=prose)
    adapted = tune(Recipe.parse(tiny_recipe()), base=tmp_path / "adapted")
    other = measure_forgetting(RunFolder(adapted.folder), text=prose)
    assert other["base_kept"]  # the same base, asked for the full run
    bases = [
        {change["name"]: change["base"] for change in one["changes"]} for one in (record, other)
    ]
    assert bases[0] == bases[1]


def test_the_command_prints_it_and_the_report_shows_it(tiny_recipe, tmp_path, prose, etude_command):
    run = tune(Recipe.parse(tiny_recipe()), base=tmp_path / "runs")
    done = etude_command(
        *("eval", str(run.folder), "--forgetting", "--prose", str(prose)),
        ETUDE_HOME=str(tmp_path / "home"),
    )
    assert done.returncode == 0, done.stderr
    assert "instructions followed" in done.stdout and "report.html" in done.stdout
    page = (run.folder / "report.html").read_text("utf-8")
    assert "what the model was not tuned for" in page and "perplexity of prose.txt" in page
    record = json.loads((run.folder / "forgetting.json").read_text("utf-8"))
    assert {change["name"] for change in record["changes"]} == {
        *("questions", "prose", "instructions")
    }


def test_text_that_cannot_be_used_is_one_line(tiny_recipe, tmp_path, etude_command):
    run = tune(Recipe.parse(tiny_recipe()), base=tmp_path / "runs")
    for name, content, said in (
        ("none.txt", None, "cannot be read"),
        ("empty.txt", b" \n", "is empty"),
        ("latin.txt", b"caf\xe9", "cannot be read as UTF-8"),
        ("short.txt", b"short", f"shorter than a passage of {TOKENS} tokens"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        done = etude_command(
            *("eval", str(run.folder), "--forgetting", "--prose", str(tmp_path / name))
        )
        assert done.returncode == 2 and said in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("kind", ["sequence-classification", "token-classification", "none"])
def test_a_model_that_writes_no_text_is_refused(tiny_recipe, tmp_path, kind):
    run = tune(Recipe.parse(tiny_recipe()), base=tmp_path / "runs")
    with pytest.raises(RunError, match="generate text"):
        Probe(replace(load(run.folder).loaded, head=Head(kind, ("a", "b"))))


def test_passages_come_from_all_parts_of_a_text():
    class Tokenizer:
        def __call__(self, text, **_):
            return {"input_ids": list(range(len(text)))}

    found = passages(["x" * (TOKENS * 200 + 7), "y" * (TOKENS - 1)], Tokenizer())
    assert len(found) == 80 and all(len(ids) == TOKENS for ids in found)
    assert found[0][0] == 0 and found[-1][0] > TOKENS * 190


def change(name, base, tuned, p):
    return {"name": name, "base": base, "tuned": tuned, "p": p, "items": 100}


def test_the_verdict_names_what_is_surely_worse_and_nothing_else():
    content = {"prose": "x.txt", "changes": [change("instructions", 40.0, 20.0, 0.001)]}
    assert verdict(content) == (
        "Outside its task the tuned model is worse at instructions followed, 40.0 % to 20.0 %."
    )
    content["changes"].append(change("prose", 2.0, 1.9, 0.01))
    content["changes"].append(change("questions", 25.0, 30.0, 0.2))
    said = verdict(content)
    assert "better at perplexity of x.txt" in said and "questions" not in said and "chance" in said
    content["changes"] = [change("questions", 25.0, 30.0, 0.2)]
    assert "no more than chance" in verdict(content)
