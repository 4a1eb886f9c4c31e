"""A full disk at any verb: one line, exit code 2, what was kept, and what was there is still there.

The disk is a real one: a file system in memory, of a megabyte, filled up to the last bytes.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from etude.cli.full_disk import full_disk, kept
from etude.core.atomic_files import replace_output
from etude.core.errors import StoreError
from etude.tuning.runs.folder import RunFolder, list_runs

pytestmark = pytest.mark.integration


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("error: ")
    return done.stderr


@pytest.mark.parametrize("leaving", [0, 12_000, 60_000, 150_000, 300_000, 500_000])
def test_tune_on_a_disk_that_fills_up_is_one_line_and_goes_on_when_there_is_space(
    tiny_run_recipe, disk, etude_command, leaving
):
    """Wherever the disk becomes full: at the folder, a checkpoint, the adapter or the report."""
    runs = disk.place / "runs"
    runs.mkdir()
    disk.fill(leaving)
    done = etude_command("tune", tiny_run_recipe, "--runs", runs, "--quiet")
    if done.returncode == 0:
        assert leaving > 200_000, "a run cannot fit into this"
        return
    line = one_line(done)
    assert "disk is full" in line or "No space left" in line, line
    disk.free()
    left = list_runs(runs)
    if not left:
        assert list(runs.iterdir()) == []
        return
    assert left[0].state in ("failed", "killed")  # a full disk may refuse the state itself
    again = etude_command("tune", "--resume", "latest", "--runs", runs, "--quiet")
    assert again.returncode == 0, again.stderr
    assert RunFolder.open(left[0].path).state == "finished"


@pytest.fixture
def tiny_run_recipe(tiny_llama, tmp_path) -> Path:
    data = tmp_path / "rows.txt"
    data.write_text("\n\n".join(f"Paragraph {i} of a few words." for i in range(24)), "utf-8")
    recipe = tmp_path / "tiny.yaml"
    fields = {
        "name": "tiny",
        "model": {"id": str(tiny_llama()), "dtype": "float32"},
        "adapter": {"rank": 4},
        "quant": {"kind": "none"},
        "data": {"train": str(data), "eval_fraction": 0.2, "max_length": 64},
        "train": {"batch_samples": 4, "save_every": 2, "threads": 1},
        "eval": {"generate": 0},
    }
    recipe.write_text(yaml.safe_dump(fields), "utf-8")
    return recipe


BIBTEX = "@misc{{a{0}, title={{Paper {0}}}, eprint={{2401.{0:05d}}}, archivePrefix={{arXiv}}}}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("papers", "import", "FILE"), "are kept"),
        (("papers", "tag", "good", "2401.00001"), "are kept"),
        (("practice", "daily"), ""),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, tuple) else "",
)
def test_the_database_on_a_full_disk_is_one_line_and_holds_what_it_held(
    disk, tmp_path, etude_command, arguments, said
):
    home = {"ETUDE_HOME": str(disk.place / "home")}
    first = tmp_path / "first.bib"
    first.write_text(BIBTEX.format(1), "utf-8")
    assert etude_command("papers", "import", first, **home).returncode == 0
    file = tmp_path / "many.bib"
    file.write_text("".join(BIBTEX.format(i) for i in range(2, 3000)), "utf-8")
    disk.fill()
    done = etude_command(*(file if word == "FILE" else word for word in arguments), **home)
    if done.returncode == 0:
        assert not said  # it had nothing to write
    else:
        assert said in one_line(done)
    disk.free()
    listed = etude_command("papers", "export", "2401.00001", "--format", "bibtex", **home)
    assert "Paper 1" in listed.stdout, listed.stderr


def test_an_export_to_a_full_disk_keeps_the_file_that_was_there(disk, tmp_path, etude_command):
    home = {"ETUDE_HOME": str(tmp_path / "home")}
    bibtex = tmp_path / "papers.bib"
    bibtex.write_text("".join(BIBTEX.format(i) for i in range(1, 60)), "utf-8")
    assert etude_command("papers", "import", bibtex, **home).returncode == 0
    output = disk.place / "out.bib"
    output.write_text("as it was", "utf-8")
    disk.fill()
    done = etude_command("papers", "export", "--everything", "-o", output, **home)
    assert f"{output} cannot be written: the disk is full" in one_line(done)
    assert output.read_text("utf-8") == "as it was"


def test_mended_data_for_a_full_disk_leave_both_files_as_they_were(disk, tmp_path, etude_command):
    rows = tmp_path / "rows.jsonl"
    line = '{"prompt": "a question?", "completion": "an answer  "}\n'
    rows.write_text(line * 2 + "".join(line.replace("a q", f"q{i} ") for i in range(900)), "utf-8")
    output = disk.place / "mended.jsonl"
    disk.fill()
    done = etude_command("data", "check", rows, "--fix", output)
    assert "the disk is full; the data that were read are unchanged" in one_line(done)
    assert not output.exists()
    assert rows.read_text("utf-8").startswith(line)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("command", [("recipe", "show", "docstrings"), ("models", "list")])
def test_standard_output_on_a_full_disk_is_one_line(command):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "etude", *command],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert "the disk is full" in one_line(done)


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (OSError(28, "No space left on device"), True),
        (OSError(13, "Permission denied"), False),
        (ValueError("database or disk is full"), True),
        (RuntimeError("I/O error: No space left on device (os error 28)"), True),
        (ValueError("anything else"), False),
    ],
    ids=str,
)
def test_a_full_disk_is_known_behind_any_exception(error, found):
    def raised() -> StoreError:
        try:
            raise error
        except Exception as inner:
            outer = StoreError("the database cannot be written")
            outer.__context__ = inner
            return outer

    assert (full_disk(error, ["chat"]) is not None) == found
    assert (full_disk(raised(), ["chat"]) is not None) == found
    if found:
        assert "a chat stores nothing" in str(full_disk(error, ["chat"]))


def test_what_is_kept_is_that_of_the_longest_command():
    assert "next sync" in kept(["papers", "sync", "--days", "3"])
    assert kept(["papers", "like", "2401.00001"]) != kept(["papers", "sync"])
    assert kept(["doctor"])


def test_an_output_that_is_no_file_is_written_to(tmp_path):
    replace_output(Path("/dev/null"), "gone")
    assert Path("/dev/null").is_char_device()
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old", "utf-8")
    link.symlink_to(target)
    replace_output(link, "new")
    assert link.is_symlink() and target.read_text("utf-8") == "new"
