"""What Etude 0.1.0 wrote is still read: runs, adapters, the database, kept tokens, recipes.

`v0_1_0/` was made by `make_v0_1_0.py` with the code of that release. Each test works on a copy and
compares with what that code computed. Where numbers are compared, they were computed on another
processor: float32 sums in another order differ by relative 1e-6 a product.
"""

from __future__ import annotations

import json
import platform
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

from etude.cli import app
from etude.core.errors import RecipeError
from etude.core.progress import SilentProgress
from etude.core.units import size
from etude.papers.library import Library
from etude.papers.reader import Reader
from etude.practice.explanations import Explanations
from etude.practice.progress import UserProgress
from etude.practice.queue import Queue
from etude.store.engine import HEAD, open_store, schema_version
from etude.tuning.adapters.merge import merge_adapter
from etude.tuning.adapters.save import load_adapter
from etude.tuning.config.recipe import Recipe
from etude.tuning.config.renamed_keys import RENAMED, RENAMED_VALUES
from etude.tuning.config.sections.model import ModelSpec
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.data.encode import Encoder
from etude.tuning.data.samples import load_samples
from etude.tuning.data.token_cache import cache_key, encode_cached
from etude.tuning.evaluation import evaluate_run
from etude.tuning.kernels.native import build
from etude.tuning.models.load import load_model
from etude.tuning.models.unquantized import UnquantizedWeights
from etude.tuning.pipeline import tune
from etude.tuning.predictor import load
from etude.tuning.runs.folder import RunFolder, find_run, list_runs

pytestmark = pytest.mark.integration

KEPT = Path(__file__).parent / "v0_1_0"
MADE = json.loads((KEPT / "made.json").read_text("utf-8"))
FINISHED = ("pissa", "full", "judged")
STATES = {"stopped": "stopped", "killed": "killed", **dict.fromkeys(FINISHED, "finished")}

# Logits are of order 1 to 10 after some twenty products; every adapter moves one by 0.5 or more.
LOGITS = {"rtol": 0, "atol": 1e-3}


@pytest.fixture
def old(tmp_path, monkeypatch):
    """A copy of the folder, to work in: the recipes in it name models and data relative to it."""
    folder = tmp_path / "old"
    shutil.copytree(KEPT, folder, symlinks=True)
    monkeypatch.chdir(folder)
    return folder


def losses(records):
    return [record["loss"] for record in records if "loss" in record]


# Runs


@pytest.mark.parametrize("name", FINISHED)
def test_a_finished_run_answers_and_measures_as_it_did(old, name):
    made = MADE["runs"][name]
    run = find_run(name, "trained")
    assert run.read_json("summary.json")["eval_loss"] == made["eval_loss"]
    # The likeliest tokens are further apart than another order of sums can move them.
    assert load(run).reply(made["prompt"], max_new_tokens=8) == made["reply"]
    again = evaluate_run(run)["tuned"]
    # A mean over all held-out tokens of what the logits' tolerance allows for.
    assert again["loss"] == pytest.approx(made["evaluated"]["loss"], rel=1e-4)
    assert again["unit"] == made["evaluated"]["unit"]
    assert again.keys() - {"standard_errors"} == made["evaluated"].keys()  # which came later


@pytest.mark.parametrize("name", ["stopped", "killed"])
def test_a_run_that_was_cut_short_goes_on_to_the_curve_of_the_undisturbed_one(old, name):
    if name == "killed" and platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("PyTorch draws other numbers for dropout on this architecture")
    run = find_run(name, "trained")
    assert run.state == STATES[name]
    undisturbed = [json.loads(line) for line in (old / f"curves/{name}.jsonl").open()]
    done = losses(run.read_metrics())
    assert 10 <= len(done) < len(losses(undisturbed)) - 10
    resumed = tune(Recipe.read_run(run.recipe), resume=RunFolder.open(run.path))
    assert resumed.state == "finished"
    # Relative 1e-6 a step in another order of sums, growing over the 40 and more that are left.
    found = losses(RunFolder.open(run.path).read_metrics())
    assert found == pytest.approx(losses(undisturbed), rel=2e-4)
    assert resumed.summary["eval_loss"] == pytest.approx(MADE["runs"][name]["eval_loss"], rel=2e-4)
    # Steps before the checkpoint were not computed again.
    assert found[:8] == done[:8]


def test_runs_are_listed_with_their_states_and_losses(old):
    assert {run.name.split("-")[0]: run.state for run in list_runs("trained")} == STATES
    assert find_run("latest", "trained").path == find_run("judged", "trained").path.resolve()
    shown = CliRunner().invoke(app, ["runs", "list", "--runs", "trained", "--json"])
    assert shown.exit_code == 0, shown.output
    facts = {fact["name"].split("-")[0]: fact for fact in json.loads(shown.output)}
    assert {name: fact["state"] for name, fact in facts.items()} == STATES
    for name in FINISHED:
        assert facts[name]["eval_loss"] == MADE["runs"][name]["eval_loss"]
        assert facts[name]["eval_loss_before"] == MADE["runs"][name]["eval_loss_before"]


@pytest.mark.parametrize("name", [*FINISHED, "stopped"])
def test_a_report_can_be_written_anew(old, name):
    run = find_run(name, "trained")
    run.report.unlink()
    shown = CliRunner().invoke(app, ["runs", "show", run.name, "--report", "--runs", "trained"])
    assert shown.exit_code == 0, shown.output
    assert run.report.stat().st_size > 10_000
    summary = run.read_json("summary.json")
    if summary is not None:
        page = run.report.read_text("utf-8")
        assert f"the estimate made before it was {size(summary['memory_plan']['total'])}" in page
        for row in summary["memory_table"]:
            assert size(row["activations"]) in page


# Adapters


@pytest.mark.parametrize("name", sorted(MADE["adapters"]))
def test_an_adapter_gives_the_logits_that_it_gave(old, name):
    kept = np.load(old / f"adapters/{name}.npz")
    ids = torch.from_numpy(kept["ids"])
    spec = QuantSpec(kind=MADE["adapters"][name])
    loaded = load_model(ModelSpec(id="base", dtype="float32"), spec)
    with torch.no_grad():
        base = loaded.model(input_ids=ids).logits
        with UnquantizedWeights(loaded.files) as original:
            folder = Path("adapters") / name
            load_adapter(loaded.model, folder, origin=loaded.origin, original=original)
        adapted = loaded.model(input_ids=ids).logits
    torch.testing.assert_close(adapted, torch.from_numpy(kept["logits"]), **LOGITS)
    assert (adapted - base).abs().max() > 0.4


@pytest.mark.parametrize("name", ["lora", "qlora", "dora", "factors"])
def test_an_adapter_is_merged_into_a_model_that_gives_its_logits(old, name):
    from transformers import AutoModelForCausalLM

    kept = np.load(old / f"adapters/{name}.npz")
    merge_adapter(ModelSpec(id="base"), Path("adapters") / name, "merged", dtype="float32")
    merged = AutoModelForCausalLM.from_pretrained("merged", dtype=torch.float32).eval()
    with torch.no_grad():
        found = merged(input_ids=torch.from_numpy(kept["ids"])).logits
    torch.testing.assert_close(found, torch.from_numpy(kept["logits"]), **LOGITS)


# The database


@pytest.fixture
def store(old):
    engine = open_store(f"sqlite:///{old / 'home' / 'etude.sqlite3'}")
    yield engine
    engine.dispose()


def test_the_database_is_brought_up_to_date_and_no_row_is_lost(store):
    from sqlalchemy import text

    assert schema_version(store) == HEAD
    with store.connect() as connection:
        for name, count in MADE["store"]["tables"].items():
            table = {"practice_learners": "practice_profiles"}.get(name, name)  # since then
            assert connection.execute(text(f'SELECT count(*) FROM "{table}"')).scalar() == count


def test_a_learner_stands_where_they_stood(store):
    made = MADE["store"]
    progress = UserProgress(store, made["learner"], lambda: made["at"])
    stats = progress.stats()
    assert (stats.solved, stats.tried, stats.submissions, stats.streak, stats.longest) == tuple(
        made["stats"][name] for name in ("solved", "tried", "submissions", "streak", "longest")
    )
    assert {str(day): count for day, count in stats.by_day.items()} == made["stats"]["by_day"]
    assert [
        (one.name, one.mastery, str(one.due), one.right, one.wrong) for one in stats.concepts
    ] == [tuple(one.values()) for one in made["stats"]["concepts"]]
    slug = made["history"][0]["slug"]
    assert progress.timezone().key == made["timezone"]
    assert progress.hints_taken(slug) == made["hints"] == 1
    assert Explanations(store, made["learner"]).rate(True) == (2, slug, "a-model")


def test_submissions_are_there_with_their_verdicts_and_those_that_wait_are_judged_next(store):
    made = MADE["store"]
    queue = Queue(store, clock=lambda: made["at"] + 3600)
    for name, history in ((made["learner"], "history"), (made["both"], "both_history")):
        assert queue.history(name) == made[history]
    waiting, begun, right, wrong = made["history"]
    assert queue.status(right["key"]).verdict.accepted
    assert queue.status(wrong["key"]).verdict.kind == wrong["kind"] != "accepted"
    # The judge that had begun one is long gone: its submission is the first again.
    assert [queue.claim("w").key, queue.claim("w").key] == [begun["key"], waiting["key"]]


def test_a_reader_has_what_they_liked_tagged_followed_and_searched_for(store):
    made = MADE["store"]
    reader = Reader(store, made["reader"])
    # Notes came later: a reader of that time has none.
    assert reader.export() == {**made["reader_export"], "notes": []}
    assert sorted(reader.opinions().values()) == [-1, 1, 1]
    assert Reader(store, made["both"]).opinions() == made["both_opinions"]
    library = Library(store)
    assert library.count() == made["papers"] == len(made["titles"])
    assert {one: library.get(one)["title"] for one in made["titles"]} == made["titles"]
    assert [paper["id"] for paper in library.day(made["last_day"])] == made["day"]


# What can be made again


def test_tokens_that_were_kept_are_read_or_made_again(old):
    stores = sorted((old / "home" / "tokens").iterdir())
    assert stores
    recipe = Recipe.read_run(find_run("stopped", "trained").recipe)
    encoder = Encoder(load_model(recipe.model, recipe.quant).tokenizer, recipe.data)
    samples = load_samples(recipe.data, recipe.train.seed).train
    fresh = encoder.encode_all(samples)
    # Under whatever name: where it has today's, by a hash of what the tokens depend on, the
    # folder is either of a form that is read, or replaced.
    (place,) = [one for one in stores if len(samples) == (one / "wanted").stat().st_size] or stores
    place.rename(place.parent / str(cache_key(encoder, samples)))
    for _ in range(2):
        found = encode_cached(encoder, samples, SilentProgress(), lambda _: None, place.parent)
        for one, other in zip(found.samples, fresh.samples, strict=True):
            assert np.array_equal(one.input_ids, other.input_ids)
            assert np.array_equal(one.trained, other.trained)
            assert one.origin == other.origin


def test_a_library_that_an_earlier_version_compiled_is_not_loaded(old, monkeypatch):
    (earlier,) = (old / "home" / "native").iterdir()
    monkeypatch.setenv("ETUDE_HOME", str(old / "home"))
    compiler = old / "compiler"
    compiler.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo a compiler and exit\n'
        'while [ $# -gt 1 ]; do [ "$1" = -o ] && echo made > "$2"; shift; done\n'
    )
    compiler.chmod(0o755)
    made = build._library([str(compiler)])
    assert made.parent == earlier.parent and made != earlier
    assert made.read_text() == "made\n"


# Recipes


def value_of(recipe, key):
    section, _, name = key.partition(".")
    return getattr(getattr(recipe, section), name)


@pytest.mark.parametrize("file", sorted(path.name for path in (KEPT / "old_keys").iterdir()))
def test_a_recipe_with_a_key_of_0_1_0_is_read(old, file):
    section, key = file.removesuffix(".yaml").split(".")
    written = yaml.safe_load((old / "old_keys" / file).read_text("utf-8"))[section][key]
    recipe = Recipe.read_run(old / "old_keys" / file)
    today = RENAMED.get(f"{section}.{key}", f"{section}.{key}")
    meant = RENAMED_VALUES.get(today, {}).get(written, written)
    assert value_of(recipe, today) == meant != value_of(Recipe(), today)
    with pytest.raises(RecipeError, match="is now"):
        Recipe.read(old / "old_keys" / file)


def test_the_recipes_of_the_runs_have_all_of_these_keys_at_other_values_than_the_default(old):
    found = set()
    for run in list_runs("trained"):
        recipe = Recipe.read_run(run.recipe)
        for path in (old / "old_keys").iterdir():
            key = path.name.removesuffix(".yaml")
            today = RENAMED.get(key, key)
            if value_of(recipe, today) != value_of(Recipe(), today):
                found.add(path.name)
    assert found == {path.name for path in (old / "old_keys").iterdir()}


ABSOLUTE = re.compile(rb"/(?:home|root|tmp|work)\b")


def test_no_path_of_the_machine_that_made_them_is_in_the_files():
    for file in KEPT.rglob("*"):
        if file.is_file():
            assert ABSOLUTE.search(file.read_bytes()) is None, file
