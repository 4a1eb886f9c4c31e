"""`etude runs`, called as the command line calls it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from etude.cli import main
from etude.tuning.config.recipe import Recipe
from etude.tuning.runs.folder import RunFolder, list_runs


class Answer(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def etude(monkeypatch, capsys, tmp_path) -> Callable[..., Answer]:
    """Run a command in `tmp_path`."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Answer:
        monkeypatch.setattr(sys, "argv", ["etude", *arguments])
        code: Any = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code
        out, err = capsys.readouterr()
        return Answer(int(code or 0), out, err)

    return call


def make(name: str, *, state: Any = "finished", rank: int = 8, **figures: Any) -> RunFolder:
    """A small run in `runs/` of the working folder, finished unless `state` says otherwise."""
    folder = RunFolder.create(name)
    fields = {"name": name, "adapter": {"rank": rank}, "data": {"train": "rows.jsonl"}}
    folder.write_text("recipe.yaml", Recipe.parse(fields).to_yaml())
    start = figures.pop("start", 4.0)
    folder.write_lines(
        "metrics.jsonl",
        [{"step": s, "loss": start - s / 50, "seconds": s * 1.5} for s in range(1, 41)],
    )
    if state == "finished":
        summary = {
            "model": "tiny",
            "method": "lora",
            "eval_loss_before": 3.5,
            "eval_loss": 2.5,
            "rouge": 30.0,
            "train_seconds": 60.0,
        }
        folder.write_json("summary.json", {**summary, **figures})
    folder.set_state(state, "as the test says")
    return folder


def test_list_shows_names_whole_however_narrow_the_terminal(etude, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    first = make("a-run-with-a-rather-long-name-that-one-types")
    second = make("stopped-run", state="stopped")
    code, out, _ = etude("runs", "list")
    assert code == 0
    lines = out.splitlines()
    assert first.name in lines[1] and "3.500 → 2.500" in lines[1]
    assert second.name in lines[2] and "stopped" in lines[2]


def test_list_as_json_is_complete_and_lists_a_damaged_run(etude):
    good, bad = make("good"), make("bad")
    bad.metrics.write_text("no json\n")
    listed = {row["name"]: row for row in json.loads(etude("runs", "list", "--json").out)}
    assert listed[good.name]["eval_loss"] == 2.5
    assert listed[good.name]["steps"] == 40
    assert listed[good.name]["state"] == "finished"
    assert "line 1" in listed[bad.name]["damaged"]


def test_list_without_runs_says_how_to_start_one(etude):
    code, out, _ = etude("runs", "list")
    assert code == 0
    assert "etude tune" in out
    assert json.loads(etude("runs", "list", "--json").out) == []


def test_show_draws_the_loss_and_names_the_report(etude):
    folder = make("docs")
    folder.write_text("report.html", "<html>")
    code, out, _ = etude("runs", "show", "docs")
    assert code == 0
    assert "3.500 → 2.500" in out
    assert out.count("•") > 20
    assert str(folder.report) in out


def test_show_writes_the_report_of_a_run_that_was_stopped(etude):
    folder = make("docs", state="stopped")
    code, out, _ = etude("runs", "show", "docs", "--report")
    assert code == 0
    assert str(folder.report) in out
    assert "stopped at step 40" in folder.report.read_text()


def test_show_as_json_holds_summary_state_and_detail(etude):
    make("docs", state="diverged")
    shown = json.loads(etude("runs", "show", "--json").out)
    assert (shown["state"], shown["detail"]) == ("diverged", "as the test says")
    assert shown["seconds"] == 60.0


def test_unknown_run_is_one_line_and_exit_code_two(etude):
    folder = make("docstrings")
    code, out, err = etude("runs", "show", "docstring")
    assert code == 0, "the start of a name is enough"
    code, out, err = etude("runs", "show", "docstrinks-2")
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert folder.name in err


def test_compare_shows_the_better_run_and_the_key_that_differs(etude):
    small, large = make("small", rank=8), make("large", rank=64, eval_loss=2.0, start=3.0)
    code, out, _ = etude("runs", "compare", "small", "large")
    assert code == 0
    assert "2.000 *" in out and "2.500 *" not in out
    row = next(line for line in out.splitlines() if line.startswith("adapter.rank"))
    assert row.split() == ["adapter.rank", "8", "64"]
    assert f"A {small.name}" in out and f"B {large.name}" in out
    compared = json.loads(etude("runs", "compare", "small", "large", "--json").out)
    assert compared["recipe"] == {"adapter.rank": {small.name: "8", large.name: "64"}}
    assert [row["eval_loss"] for row in compared["runs"]] == [2.5, 2.0]


def test_compare_of_one_run_with_itself_is_refused(etude):
    folder = make("only")
    code, _, err = etude("runs", "compare", "only", folder.name)
    assert code == 2
    assert "two different runs" in err


def test_compare_writes_a_page_on_demand(etude, tmp_path):
    make("one")
    make("two")
    assert etude("runs", "compare", "one", "two", "--html", "page.html").code == 0
    assert "</html>" in (tmp_path / "page.html").read_text()
    code, _, err = etude("runs", "compare", "one", "two", "--html", "nowhere/page.html")
    assert code == 2
    assert "nowhere/page.html" in err


def age(folder: RunFolder, days: float) -> None:
    when = time.time() - days * 86_400
    os.utime(folder.path / "state.json", (when, when))


def test_clean_wants_to_know_what_may_go(etude):
    make("a")
    code, _, err = etude("runs", "clean", "--yes")
    assert code == 2
    assert "--older-than" in err
    assert len(list_runs()) == 1


def test_clean_removes_only_what_both_filters_hold_for(etude):
    old_failed, new_failed = make("old-failed", state="failed"), make("new", state="diverged")
    old_finished = make("old-finished")
    age(old_failed, 31)
    age(old_finished, 31)
    code, out, _ = etude("runs", "clean", "--failed", "--older-than", "30d", "--yes")
    assert code == 0
    assert f"removed {old_failed.path}" in out
    assert {run.name for run in list_runs()} == {new_failed.name, old_finished.name}


def test_dry_run_removes_nothing(etude):
    folder = make("a", state="failed")
    code, out, _ = etude("runs", "clean", "--failed", "--dry-run")
    assert code == 0
    assert f"would remove {folder.path}" in out
    assert folder.path.is_dir()


def test_clean_asks_first_and_off_a_terminal_refuses_without_yes(etude, monkeypatch):
    folder = make("a", state="failed")
    monkeypatch.setattr("sys.stdin", io.StringIO())
    code, _, err = etude("runs", "clean", "--failed")
    assert code == 2
    assert "--yes" in err
    assert folder.path.is_dir()

    class Terminal:
        def isatty(self) -> bool:
            return True

        def readline(self) -> str:
            return "n\n"

    monkeypatch.setattr("sys.stdin", Terminal())
    assert etude("runs", "clean", "--failed").code == 1
    assert folder.path.is_dir()


def test_clean_never_removes_a_run_that_is_going(etude):
    folder = make("a", state="failed")
    writer = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time; from etude.tuning.runs.folder import RunFolder\n"
            "RunFolder.open(sys.argv[1]).lock(); print('ready', flush=True); time.sleep(60)",
            str(Path.cwd() / folder.path),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        code, out, _ = etude("runs", "clean", "--older-than", "0m", "--yes")
        assert code == 0
        assert "removed 0 runs" in out
        assert folder.path.is_dir()
    finally:
        writer.kill()
        writer.communicate()


@pytest.mark.parametrize("span", ["soon", "30", "-3d", "3y"])
def test_span_of_time_that_is_none_is_refused(etude, span):
    make("a")
    code, _, err = etude("runs", "clean", f"--older-than={span}", "--yes")
    assert code == 2
    assert "30d" in err


def test_a_run_is_queued_shown_taken_out_and_removed(etude, tmp_path, monkeypatch):
    # The queue is looked at, not worked on: no process is started.
    monkeypatch.setattr("etude.app.jobs.advance", lambda base: None)
    (tmp_path / "rows.csv").write_text("prompt,completion\n" + "a,b\n" * 9, "utf-8")
    code, out, err = etude("tune", "chat", "--data", "rows.csv", "--queue")
    assert code == 0 and "number 1" in err
    name = out.strip().rpartition("/")[2]
    assert Recipe.read_run(f"runs/{name}/recipe.yaml").data.train == str(tmp_path / "rows.csv")
    code, out, err = etude("tune", "--clone", name, "--set", "adapter.rank=3", "--queue")
    assert code == 0 and "number 2" in err
    clone = out.strip().rpartition("/")[2]
    assert Recipe.read_run(f"runs/{clone}/recipe.yaml").adapter.rank == 3
    shown = json.loads(etude("runs", "queue", "--at-once", "2", "--json").out)
    assert shown["at_once"] == 2 and shown["started"] is None
    assert [(run["name"], run["place"]) for run in shown["runs"]] == [(name, 1), (clone, 2)]
    listed = etude("runs", "list").out
    assert listed.count("queued") == 2
    assert "has left the queue" in etude("runs", "stop", clone).out
    assert json.loads(etude("runs", "show", clone, "--json").out)["state"] == "stopped"
    code, out, err = etude("runs", "remove", clone)
    assert code == 2 and "--yes" in err and (tmp_path / "runs" / clone).exists()
    assert "removed" in etude("runs", "remove", clone, "--yes").out
    assert not (tmp_path / "runs" / clone).exists()
    code, out, err = etude("runs", "stop", make("done").name)
    assert code == 2 and "is not running: it is finished" in err


@pytest.mark.parametrize(
    "words",
    [
        ["chat", "--clone", "latest"],
        ["--clone", "latest", "--resume", "latest"],
        ["chat", "--queue", "--compare"],
    ],
)
def test_options_that_contradict_each_other_are_refused(etude, words):
    make("docs")
    code, _, err = etude("tune", *words)
    assert code == 2 and err.startswith("error: --")
