"""A full disk at any verb: one line, exit code 2, what was kept, and what was there is still there.

The disk is a real one: a file system in memory, of a megabyte, filled up to the last bytes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest
import yaml

from etude.cli.full_disk import full_disk, kept
from etude.core.atomic_files import replace_output
from etude.core.errors import StoreError
from etude.papers.fake_arxiv import ReplayServer, generated
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


@pytest.mark.parametrize("leaving", [12_000, 400_000])
def test_a_search_on_a_disk_that_fills_up_is_one_line_and_goes_on_when_there_is_space(
    tiny_run_recipe, disk, etude_command, leaving
):
    runs = disk.place / "runs"
    runs.mkdir()
    disk.fill(leaving)
    lr = "train.lr={choices: [0.001, 0.002, 0.004, 0.008]}"
    words = ("search", tiny_run_recipe, "--set", lr, "--trials", "4", "--no-halving")
    done = etude_command(*words, "--runs", runs, "--quiet")
    line = one_line(done)
    assert "disk is full" in line or "No space left" in line, line
    disk.free()
    left = list_runs(runs)
    if not left:
        assert list(runs.iterdir()) == []
        return
    # A megabyte does not hold four runs: where one ended for want of space, the next one may.
    finished = [
        run.path.name for run in list_runs(left[0].path / "trials") if run.state == "finished"
    ]
    again = etude_command("search", "--resume", "latest", "--runs", runs, "--quiet")
    assert again.returncode in (0, 2), again.stderr
    still = [run.path.name for run in list_runs(left[0].path / "trials") if run.state == "finished"]
    assert set(finished) <= set(still)
    if again.returncode:
        assert "disk is full" in one_line(again) or "No space left" in again.stderr


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


def run_etude(
    *arguments: object, stdin: str = "", output: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, standard output to a file if one is named."""
    with (output or Path(os.devnull)).open("w") as file:
        return subprocess.run(
            [sys.executable, "-m", "etude", *map(str, arguments)],
            input=stdin,
            stdout=subprocess.PIPE if output is None else file,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200", **environment},
        )


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one line of a process that failed, after what its progress showed."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("error: ") == 1, done.stderr
    return done.stderr.strip().splitlines()[-1]


WRONG = "def create_dataset(features, labels):\n    return None\n"

PRACTICE_KEPT = "earlier submissions, verdicts and progress are kept"


@pytest.mark.parametrize("leaving", [0, 8_000])
@pytest.mark.parametrize(
    ("verb", "kept_now"),
    [
        (("submit", "create-tensordataset", "ANSWER"), "earlier submissions and their verdicts"),
        (("daily",), PRACTICE_KEPT),
        (("stats",), PRACTICE_KEPT),
        (("list",), PRACTICE_KEPT),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_practice_on_a_full_disk_is_one_line_and_keeps_the_verdicts(
    disk, tmp_path, etude_command, verb, kept_now, leaving
):
    home = {"ETUDE_HOME": str(disk.place / "home")}
    answer = tmp_path / "answer.py"
    answer.write_text(WRONG, "utf-8")
    first = etude_command("practice", "submit", "create-tensordataset", answer, **home)
    assert first.returncode == 1 and "0/14" in first.stdout, first.stderr
    disk.fill(leaving)
    done = run_etude("practice", *(answer if word == "ANSWER" else word for word in verb), **home)
    line = one_line(done)
    assert "disk is full" in line and kept_now in line
    disk.free()
    shown = etude_command("practice", "stats", **home)
    assert "solved 0 of 1 tried, 1 submissions" in shown.stdout, shown.stderr
    again = etude_command("practice", "submit", "create-tensordataset", answer, **home)
    assert again.returncode == 1 and "0/14" in again.stdout, again.stderr


@pytest.mark.parametrize(
    "verb",
    [
        ("start", "create-tensordataset", "DISK/answer.py"),
        ("export", "DISK/problems.zip", "create-tensordataset"),
        ("new", "llm", "my-problem", "--shelf", "DISK/shelf"),
        ("import", "ZIP", "--shelf", "DISK/shelf"),
    ],
    ids=lambda verb: verb[0],
)
def test_what_practice_writes_to_a_full_disk_is_whole_or_not_there(
    disk, tmp_path, etude_command, verb
):
    home = {"ETUDE_HOME": str(tmp_path / "home")}
    bundle = tmp_path / "problems.zip"
    written = etude_command("practice", "export", bundle, "create-tensordataset", **home)
    assert written.returncode == 0, written.stderr
    words = [word.replace("DISK", str(disk.place)).replace("ZIP", str(bundle)) for word in verb]
    disk.fill()
    line = one_line(run_etude("practice", *words, **home))
    assert "disk is full" in line or "No space left" in line
    assert "kept" in line
    assert [path.name for path in disk.place.iterdir()] == ["filling"]
    disk.free()
    again = etude_command("practice", *words, **home)
    assert again.returncode == 0, again.stderr


@pytest.fixture(scope="module")
def arxiv() -> Iterator[ReplayServer]:
    with ReplayServer(generated(60, first=date.today() - timedelta(days=9), days=7)) as server:
        yield server


@pytest.mark.parametrize(
    ("leaving", "verb", "kept_now"),
    [
        (0, ("sync",), "papers that were stored are kept, and the next sync goes on from there"),
        (100_000, ("sync",), "are kept, and the next sync goes on from there"),
        (0, ("backfill", "--since", "SINCE"), "are kept, and the next call goes on from there"),
        (100_000, ("backfill", "--since", "SINCE"), "the next call goes on from there"),
        (0, ("save", "all", "the"), "marks and settings that were stored are kept"),
        (0, ("search", "paper"), "marks and settings that were stored are kept"),
    ],
)
def test_papers_on_a_full_disk_are_one_line_and_the_library_goes_on(
    disk, tmp_path, arxiv, etude_command, leaving, verb, kept_now
):
    home = {
        "ETUDE_HOME": str(disk.place / "home"),
        "ETUDE_USER": "ada",
        "ETUDE_ARXIV": arxiv.address,
        "ETUDE_DATABASE": "",
    }
    first = tmp_path / "first.bib"
    first.write_text(BIBTEX.format(1), "utf-8")
    # In another process: this one would hold the database open, with its shared memory.
    assert run_etude("papers", "import", first, **home).returncode == 0
    disk.fill(leaving)
    since = str(date.today() - timedelta(days=9))
    words = [since if word == "SINCE" else word for word in verb]
    line = last_line(run_etude("papers", *words, **home))
    assert "disk is full" in line or "No space left" in line
    assert kept_now in line
    disk.free()
    after = etude_command("papers", "sync", **home)
    assert after.returncode == 0, after.stderr
    listed = etude_command("papers", "export", "2401.00001", "--format", "bibtex", **home)
    assert "Paper 1" in listed.stdout, listed.stderr


@pytest.fixture(scope="module")
def tiny_run(tiny_llama, tmp_path_factory, etude_command) -> Path:
    """The runs folder of a language model of two layers."""
    folder = tmp_path_factory.mktemp("answers")
    data = folder / "rows.jsonl"
    rows = [{"prompt": f"question {i}", "completion": f"answer {i}"} for i in range(24)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    recipe = folder / "tiny.yaml"
    fields = {
        "name": "tiny",
        "model": {"id": str(tiny_llama()), "dtype": "float32"},
        "adapter": {"rank": 4},
        "quant": {"kind": "none"},
        "data": {"train": str(data), "eval_fraction": 0.2, "max_length": 64},
        "train": {"batch_samples": 4, "max_steps": 2, "threads": 1},
        "eval": {"generate": 0},
    }
    recipe.write_text(yaml.safe_dump(fields), "utf-8")
    done = etude_command("tune", recipe, "--runs", folder / "runs", "--quiet")
    assert done.returncode == 0, done.stderr
    return folder / "runs"


@pytest.mark.parametrize("leaving", [0, 1000])
def test_predictions_to_a_full_disk_are_one_line_that_counts_what_is_whole(
    disk, tiny_run, tmp_path, leaving
):
    questions = tmp_path / "questions.txt"
    questions.write_text("".join(f"question {i}\n" for i in range(200)), "utf-8")
    output = disk.place / "answers.jsonl"
    disk.fill(4096 if leaving else 0)
    if leaving:
        # A disk gives out whole pages; the file begins that far from the end of its one.
        output.write_bytes(b" " * (4096 - leaving) + b"\n")
    words = ["predict", "latest", questions, "--runs", tiny_run, "--max-new-tokens", "4"]
    done = run_appending(output, *words)
    line = last_line(done)
    whole = output.read_bytes().split(b"\n")[1 if leaving else 0 : -1]
    assert f"the disk is full; {len(whole)} predictions are kept" in line
    assert bool(whole) == bool(leaving)
    for number, one in enumerate(whole):
        assert json.loads(one)["input"] == f"question {number}"


def run_appending(output: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command line with its standard output at the end of a file, as `>>` does."""
    with output.open("a") as file:
        return subprocess.run(
            [sys.executable, "-m", "etude", *map(str, arguments)],
            stdout=file,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )


def test_a_chat_with_a_full_disk_is_one_line_and_one_whose_home_is_full_still_answers(
    disk, tiny_run
):
    """Only where answers go may end it: no cache that cannot be written does."""
    home = {"ETUDE_HOME": str(disk.place / "home")}
    disk.fill()
    words = ["chat", "latest", "--runs", tiny_run, "--max-new-tokens", "8"]
    answered = run_etude(*words, stdin="a question", **home)
    assert answered.returncode == 0, answered.stderr
    assert "--- " in answered.stdout
    cut = run_etude(*words, stdin="a question", output=disk.place / "chat.txt")
    line = last_line(cut)
    assert "the disk is full; a chat stores nothing" in line


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
