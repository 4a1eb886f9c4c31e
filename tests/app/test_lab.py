"""What is seen before a run: data, loss mask, findings, memory; asked of a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from etude.app import lab
from etude.core.errors import DataError, RecipeError

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def model(tiny_llama):
    return str(tiny_llama(layers=1))


@pytest.fixture
def reviews(tmp_path):
    """A CSV as a spreadsheet writes it: semicolons, not UTF-8."""
    lines = ["review;stars"]
    lines += [f"café {n} was {'good' if n % 2 else 'bad'};{n % 2}" for n in range(60)]
    file = tmp_path / "reviews.csv"
    file.write_bytes("\r\n".join(lines).encode("cp1252"))
    return file


def test_a_recipe_is_made_for_a_file_of_another_encoding(reviews, model):
    made = lab.decide(str(reviews), model=model)
    assert (
        "text-classification" in made.yaml and "cp1252" in made.yaml and str(reviews) in made.yaml
    )
    notes = " ".join(made.notes)
    assert "cp1252" in notes and "'review'" in notes and "'stars'" in notes
    shown = lab.preview(made.yaml, search="CAFÉ 5", first=1, limit=3)
    assert [c.name for c in shown.columns] == ["review", "stars"]
    assert (shown.count, shown.complete, shown.unreadable) == (60, True, [])
    # 5 and 50 to 59; the first is passed over.
    assert shown.matching == 11
    assert [row.cells[0] for row in shown.rows] == [
        "café 50 was bad",
        "café 51 was good",
        "café 52 was bad",
    ]
    stars = shown.columns[1]
    assert (stars.filled, stars.distinct, stars.numbers) == (60, 2, 60)
    assert sorted(stars.common) == [("0", 30), ("1", 30)]


@pytest.fixture
def chat(tmp_path, model):
    """The YAML of a recipe for a few conversations, one of which is too long."""
    rows = [{"prompt": f"open {n}", "completion": f"Close {n}."} for n in range(8)]
    rows.append({"prompt": "long " * 400, "completion": "Short."})
    rows += rows[1:4]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return (
        f"task: chat\nmodel:\n  id: {model}\ndata:\n  train: {file}\n  max_length: 64\n"
        "  eval_fraction: 0.2\n  too_long: cut_prompt\n"
    )


def test_the_mask_of_any_row_marks_the_end_and_what_is_cut(chat):
    first = lab.masks(chat)
    assert len(first.samples) == 3 and first.histogram and not first.refused
    sample = first.samples[0]
    trained = [piece for piece in sample.pieces if piece.state == "trained"]
    assert "".join(piece.text for piece in trained).startswith("Close")
    assert trained[-1].special and trained[-1].text == "<|im_end|>"
    assert sample.trained == len(trained) and sample.tokens == len(sample.pieces)
    (cut,) = lab.masks(chat, origins=["rows.jsonl:9"]).samples
    assert "prompt truncated" in cut.note
    states = [piece.state for piece in cut.pieces]
    assert "dropped" in states and states[-1] in ("trained", "context")
    with pytest.raises(DataError, match="no sample is made of rows"):
        lab.masks(chat, origins=["rows.jsonl:99"])


def test_findings_and_memory_are_those_of_the_commands(chat, tmp_path):
    found = lab.findings(chat)
    assert sum(found.rows.values()) == 12
    assert "duplicates" in {one.check for one in found.findings}
    plan = lab.memory_plan(chat, tmp_path / "runs")
    assert plan.total == sum(plan.parts.values()) > 0 and plan.fits
    assert plan.disk_free > plan.disk_needed > 0
    assert set(plan.others) == {"lora", "full"}


def test_what_is_wrong_is_said_and_its_kind_kept(chat, tmp_path):
    with pytest.raises(DataError, match="no data file"):
        lab.preview(chat.replace("rows.jsonl", "gone.jsonl"))
    with pytest.raises(RecipeError, match="unknown key"):
        lab.preview(chat + "nonsense: 1\n")
    rows = tmp_path / "rows.jsonl"
    rows.write_text("not json\n" + rows.read_text("utf-8"), "utf-8")
    shown = lab.preview(chat)
    assert shown.unreadable_count == 1 and "rows.jsonl:1" in shown.unreadable[0]
    assert lab.masks(chat).refused


def test_a_process_that_dies_or_takes_too_long_is_said(chat, tmp_path, monkeypatch):
    with pytest.raises(lab.LabError, match="longer than"):
        lab.ask("check", {"yaml": chat}, seconds=0.01)
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nkill -9 $$\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(lab.LabError, match="killed"):
        lab.preview(chat)


def test_one_process_answers_what_follows_and_a_killed_one_is_replaced(chat, tmp_path):
    lab.end_processes()
    lab.preview(chat)
    ((_, warm),) = lab._warm
    first = warm.process.pid
    assert lab.preview(chat, search="open 3").matching == 2
    with pytest.raises(DataError, match="no data file"):
        lab.preview(chat.replace("rows.jsonl", "gone.jsonl"))
    assert warm.process.pid == first
    warm.process.kill()
    warm.process.wait()
    assert lab.preview(chat).count == 12 and warm.process.pid != first
    # One with other variables is not asked.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ETUDE_HOME", str(tmp_path))
        lab.preview(chat)
        assert [process is warm for _, process in lab._warm] == [False]


def test_whoever_asks_imports_neither_torch_nor_transformers(chat, tmp_path):
    code = (
        "import sys\nfrom etude.app import jobs, lab, recipe_form, run_series, runs\n"
        "from pathlib import Path\n"
        "recipe_form.read_form(sys.argv[1]); lab.preview(sys.argv[1])\n"
        "from etude.app.tune import PlannedRun\n"
        "run = jobs.add_job(PlannedRun(recipe_form.read_recipe(sys.argv[1])), Path(sys.argv[2]))\n"
        "runs.list_facts(Path(sys.argv[2])); run_series.read_series(run)\n"
        "jobs.plan_clone(run.name, Path(sys.argv[2])); jobs.stop_job(run.name, Path(sys.argv[2]))\n"
        "print([m for m in ('torch', 'transformers', 'tokenizers', 'pyarrow') if m in sys.modules])"
    )
    words = [sys.executable, "-c", code, chat, str(tmp_path / "runs")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
