"""What is made of a run's adapter on its page: sizes, the disk, files as the commands make them."""

from __future__ import annotations

import hashlib
import json
import time

import pytest
from tests.app.trained import train

from etude.app import run_exports as exports
from etude.app import work
from etude.app.export import export_gguf, export_peft, merge_run
from etude.app.jobs import remove_job
from etude.app.work import WorkState, work_of_run
from etude.core.errors import RunError
from etude.tuning.runs.folder import RunFolder
from etude.tuning.runs.process import signature

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def run(tiny_llama, tmp_path_factory):
    base = tmp_path_factory.mktemp("exports") / "runs"
    base.mkdir()
    return train(tiny_llama(layers=1), base, "taken", quant={"kind": "nf4"})


def made(run, name, kind):
    exports.begin_export(run, name, kind)
    with pytest.raises(RunError, match="being worked on"):
        exports.begin_export(run, name, kind)
    work._children[-1].wait(240)
    one = next(one for one in exports.run_exports(run) if one.name == name)
    assert one.work is None, one.work
    return one


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("kind", ["float32", "bfloat16:original"])
def test_a_merged_model_is_that_of_the_command_and_as_large_as_was_said(run, kind, tmp_path):
    one = made(run, "merged", kind)
    dtype, _, base = kind.partition(":")
    merge_run(str(run.adapter), tmp_path / "by-hand", dtype=dtype, base=base or None)
    name = "model.safetensors"
    assert digest(one.path / name) == digest(tmp_path / "by-hand" / name)
    # The weights' file has a header of some kilobytes.
    weights = (one.path / name).stat().st_size
    assert one.sizes[kind] <= weights <= one.sizes[kind] + 20_000
    assert one.bytes >= weights
    assert exports.remove_export(run, "merged") == one.bytes
    assert not one.path.exists()


def test_files_for_other_programs_are_those_of_the_commands(run, tmp_path):
    gguf = made(run, "gguf", "f16")
    export_gguf(str(run.adapter), tmp_path / "a.gguf", number="f16")
    assert digest(gguf.path) == digest(tmp_path / "a.gguf")
    assert gguf.sizes["f16"] <= gguf.bytes <= gguf.sizes["f16"] + 20_000
    peft = made(run, "peft", "float32")
    export_peft(str(run.adapter), tmp_path / "peft")
    names = sorted(file.name for file in peft.path.iterdir())
    assert names == sorted(file.name for file in (tmp_path / "peft").iterdir())
    weights = "adapter_model.safetensors"
    assert digest(peft.path / weights) == digest(tmp_path / "peft" / weights)
    for name in ("gguf", "peft"):
        assert exports.remove_export(run, name) > 0
        with pytest.raises(RunError, match="nothing to delete"):
            exports.remove_export(run, name)


def test_what_does_not_fit_or_is_unknown_is_refused_before_anything_begins(run, monkeypatch):
    monkeypatch.setattr(exports, "disk_free", lambda path: 1000)
    with pytest.raises(RunError, match=r"1\.00 kB are free on the disk"):
        exports.begin_export(run, "merged", "float32")
    monkeypatch.undo()
    for name, kind in (("merged", "nf4"), ("../x", "f16"), ("gguf", "float32")):
        with pytest.raises(RunError, match="no adapter"):
            exports.begin_export(run, name, kind)
    assert not work_of_run(run).states()


def test_why_it_failed_is_one_line_and_what_a_kill_left_is_removed(run, tiny_llama):
    provenance = run.adapter / "etude.json"
    before = provenance.read_text("utf-8")
    fields = json.loads(before)
    fields["base"]["name"] = "/no/such/model"
    provenance.write_text(json.dumps(fields), "utf-8")
    left = run.path / "exports" / ".merged.killed"
    left.mkdir(parents=True, exist_ok=True)
    exports.begin_export(run, "merged", "float32")
    work._children[-1].wait(240)
    (state,) = work_of_run(run).states().values()
    assert state.condition == "failed" and "/no/such/model" in state.problem
    assert "\n" not in state.problem and not left.exists()
    provenance.write_text(before, "utf-8")
    work_of_run(run).forget("merged")


def test_a_run_that_is_merged_now_is_not_deleted(run):
    folder = work_of_run(run)
    (run.path / "work").mkdir(exist_ok=True)
    folder.write(WorkState("merge", "merged", "float32", time.time(), signature(), "Merging"))
    with pytest.raises(RunError, match="Merging"):
        remove_job(str(run.path), run.path.parent)
    with pytest.raises(RunError, match="nothing to delete"):
        exports.remove_export(run, "merged")
    folder.forget("merged")
    assert run.path.exists()


def test_without_an_adapter_there_is_nothing_to_make(tmp_path):
    run = RunFolder.create("none", tmp_path / "runs")
    assert exports.run_exports(run) == []
    with pytest.raises(RunError, match="no adapter"):
        exports.begin_export(run, "merged", "float32")
