"""Models on this machine: listed, worked on by processes of their own, removed."""

from __future__ import annotations

import json
import time

import pytest

from etude.app import work
from etude.app.model_work import begin_work, work_folder, work_stamp, work_states
from etude.app.models import begin_pull, begin_quantizing, list_models, remove_model
from etude.app.work import WorkState
from etude.core.errors import ModelError
from etude.core.paths import models_folder
from etude.tuning.runs.folder import RunFolder
from etude.tuning.runs.process import signature

HUB = "owner/tiny"


def _files():
    return models_folder() / ".work"


@pytest.fixture
def machine(installation, monkeypatch):
    """A machine with a model in the hub's cache and one that was quantised."""
    monkeypatch.setenv("HF_HUB_CACHE", str(installation / "hub"))
    snapshot = installation / "hub" / "models--owner--tiny" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (snapshot / "README.md").write_text("---\nlicense: mit\n---\n# Tiny\n")
    (snapshot / "model.safetensors").write_bytes(b"x" * 5000)
    made = models_folder() / "owner-tiny-nf4"
    made.mkdir(parents=True)
    config = {"quantization_config": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}}
    (made / "config.json").write_text(json.dumps(config))
    return installation


def test_models_of_the_catalogue_the_hub_and_made_here_are_listed_those_here_first(machine):
    shelf = list_models(machine / "runs")
    assert [(one.title, one.origin, one.pulled) for one in shelf.models[:2]] == [
        (HUB, "hub", True),
        ("owner-tiny-nf4", "quantized", True),
    ]
    hub = shelf.find(HUB)
    # What was made already is not offered again, and has the licence of what it was made of.
    assert (hub.license, hub.bytes > 5000, hub.quantizable) == ("mit", True, ("fp4", "int8"))
    assert (shelf.models[1].license, "in nf4" in shelf.models[1].summary) == ("mit", True)
    waiting = shelf.find("minilm")
    assert not waiting.pulled and waiting.license == "Apache-2.0" and waiting.download > 0
    assert shelf.bytes == sum(one.bytes for one in shelf.models if one.pulled)


def test_a_model_that_a_run_needs_now_is_not_removed(machine):
    base = machine / "runs"
    with RunFolder.create("tuned", base) as run:
        run.write_text("recipe.yaml", f"model:\n  id: {HUB}\n")
        run.set_state("running")
        (using,) = list_models(base).find(HUB).runs
        assert using.at_work and using.name == run.name
        with pytest.raises(ModelError, match=f"is used by {run.name}"):
            remove_model(HUB, base)
        run.set_state("finished")
    (using,) = list_models(base).find(HUB).runs
    assert not using.at_work
    folder = machine / "hub" / "models--owner--tiny"
    assert remove_model(HUB, base) > 5000
    assert not folder.exists()
    with pytest.raises(ModelError, match="there is no model"):
        remove_model(HUB, base)


def test_a_model_that_is_worked_on_is_not_removed_and_not_worked_on_twice(machine):
    _files().mkdir()
    before = work_stamp()
    work_folder().write(WorkState("quantize", HUB, "nf4", time.time(), signature(), "Reading"))
    assert work_stamp() != before
    assert list_models().find(HUB).work.condition == "running"
    with pytest.raises(ModelError, match="being worked on: Reading"):
        remove_model(HUB)
    with pytest.raises(ModelError, match="being worked on: Reading"):
        begin_work("pull", HUB)


def test_work_whose_process_is_gone_was_interrupted(machine):
    _files().mkdir()
    gone = {**signature(), "started": "another"}
    work_folder().write(
        WorkState("pull", "owner/new", "", time.time(), gone, "Downloading", 5, 10, "B")
    )
    (coming,) = list_models().coming
    assert (coming.name, coming.condition) == ("owner/new", "interrupted")
    work_folder().write(WorkState("pull", "owner/new", "", time.time() - 60))
    assert work_states()["owner/new"].condition == "interrupted"


@pytest.mark.parametrize("name", ["no such", "../etc", "owner/../x", "-rf", "a/b/c", ""])
def test_only_names_of_models_are_pulled(machine, name):
    with pytest.raises(ModelError, match="hub id"):
        begin_pull(name)
    assert not _files().exists()


@pytest.mark.parametrize(("name", "kind"), [(HUB, "q4"), ("minilm", "nf4"), ("/etc", "nf4")])
def test_only_models_that_are_here_are_quantised_to_known_formats(machine, name, kind):
    with pytest.raises(ModelError):
        begin_quantizing(name, kind)


@pytest.mark.integration
def test_a_process_pulls_and_says_why_it_could_not(machine, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "1")
    begin_pull("owner/absent")
    work._children[-1].wait(240)
    state = work_states()["owner/absent"]
    assert state.condition == "failed" and "owner/absent" in state.problem
    assert list_models().coming == [state]


@pytest.mark.integration
def test_a_process_that_is_stopped_leaves_nothing_half_made(machine):
    begin_quantizing(HUB, "int8")
    while (state := work_states()[HUB]).process is None and state.condition == "running":
        time.sleep(0.01)
    work_folder().stop(HUB)
    work._children[-1].wait(120)
    assert work_states()[HUB].condition in ("failed", "interrupted")
    assert not (models_folder() / "owner-tiny-int8").exists()
