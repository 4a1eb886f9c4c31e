"""`etude data inspect`: what a person reads, in colour and without, and what a mistake says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from etude.cli import main

ROWS = [{"prompt": f"Name {i}?", "completion": f"It is {i}."} for i in range(12)]


@pytest.fixture(scope="module")
def model(tiny_llama) -> Path:
    return tiny_llama()


@pytest.fixture
def rows(tmp_path) -> Path:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return file


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it wrote."""

    code: int
    out: str
    err: str


@pytest.fixture
def etude(monkeypatch, capsys) -> Callable[..., Done]:
    """Run `etude data` with arguments and environment variables."""

    def run(*arguments: object, **environment: str) -> Done:
        monkeypatch.delenv("FORCE_COLOR", raising=False)
        for key, value in {"COLUMNS": "120", **environment}.items():
            monkeypatch.setenv(key, value)
        monkeypatch.setattr(sys, "argv", ["etude", "data", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        written = capsys.readouterr()
        return Done(int(ended.value.code or 0), written.out, written.err)

    return run


def test_without_colours_trained_tokens_stand_in_brackets(etude, rows, model):
    done = etude("inspect", rows, "--model", model, "--rows", 2)
    assert done.code == 0, done.err
    assert "\x1b" not in done.out
    sample = done.out.split("rows.jsonl:1\n")[1].split("rows.jsonl:2\n")[0]
    trained = "".join(re.findall(r"\[(.*?)\]", sample))
    assert trained == "It is 0.<|im_end|>"
    assert "rows.jsonl:3\n" not in done.out
    assert re.search(r"samples +12\b", done.out)
    assert re.search(r"\d+-\d+ .*12", done.out), "bars by length"


def test_with_colours_states_differ_by_style_and_data_cannot_command_the_terminal(
    etude, rows, model
):
    rows.write_text('{"prompt": "red \\u001b[31m", "completion": "fine"}\n')
    done = etude("inspect", rows, "--model", model, FORCE_COLOR="1", TERM="xterm-256color")
    assert done.code == 0, done.err
    styles = dict(re.findall(r"\x1b\[([\d;]+)m(trained|context)\x1b\[0m", done.out))
    assert sorted(styles.values()) == ["context", "trained"]
    assert "\x1b[31m" not in done.out and "<1b>" in re.sub(r"\x1b\[[\d;]*m", "", done.out)


def test_the_web_page_is_written(etude, rows, model, tmp_path):
    page = tmp_path / "page.html"
    done = etude("inspect", rows, "--model", model, "--html", page)
    assert done.code == 0, done.err
    assert '<span class="trained">' in page.read_text("utf-8")


def test_a_recipe_says_how_rows_are_read_and_the_file_replaces_its_data(etude, tmp_path, model):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"model: {model}\n"
        "data: {train: elsewhere.jsonl, prompt: 'Q: {question}', completion: answer}\n"
    )
    file = tmp_path / "rows.csv"
    file.write_text("question,answer\n" + "".join(f"why {i},so {i}\n" for i in range(40)))
    done = etude("inspect", file, "--recipe", recipe, "--set", "data.eval_fraction=0.5")
    assert done.code == 0, done.err
    assert "held out" in done.out and "[so" in done.out.replace("[s][o", "[so")


def test_docstrings_of_a_package_are_shown_by_their_recipe(etude, tmp_path, model):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"model: {model}\ndata: {{kind: docstrings, packages: [numpy], eval_packages: [rich],"
        " max_train: 8, max_eval: 2, max_length: 2048}\n"
    )
    done = etude("inspect", "httpx", "--recipe", recipe, "--rows", 1)
    assert done.code == 0, done.err
    assert re.search(r"^httpx/\S+\.py:\d+$", done.out, re.MULTILINE)
    assert "modules of httpx" in done.out.replace("\n", " ")


def test_features_and_labels_are_summed_up(etude, tmp_path):
    file = tmp_path / "features.npz"
    np.savez(file, features=np.ones((6, 3), np.float32), labels=np.array([0, 1, 1, 2, 2, 2]))
    done = etude("inspect", file)
    assert done.code == 0, done.err
    for pattern in (r"samples \(N\) +6", r"features \(F\) +3", r"float32", r"(?m)^2 .* 3$"):
        assert re.search(pattern, done.out), pattern


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a data file, or a recipe"),
        (["none.jsonl"], "no data file at none.jsonl"),
        (["none.npz"], "no data file at none.npz"),
        (["--recipe", "none.yaml"], "no recipe at none.yaml"),
        (["x.jsonl", "--set", "data.max_lenght=9"], "did you mean 'data.max_length'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(etude, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = etude("inspect", *arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.err and done.err.count("\n") == 1


def test_a_bad_row_is_one_line_and_exit_code_2(etude, rows, model):
    with rows.open("a") as stream:
        stream.write("{oops\n")
    done = etude("inspect", rows, "--model", model)
    assert done.code == 2 and "rows.jsonl:13 is not JSON" in done.err


def test_help_shows_examples_without_loading_torch(etude):
    done = etude("inspect", "--help")
    assert done.code == 0 and "etude data inspect rows.jsonl" in done.out
    code = "import sys, etude.cli; print('torch' in sys.modules)"
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "False"


def test_a_file_is_looked_at_by_a_recipe_that_names_no_data(etude, rows, model, tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"model: {model}\ndata: {{max_length: 64, eval_fraction: 0}}\n", "utf-8")
    assert etude("inspect", rows, "--recipe", recipe).code == 0
    done = etude("inspect", "--recipe", recipe)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "data.train is missing" in done.err


def test_a_folder_of_documents_is_shown_row_by_row_as_it_would_be_trained(etude, model, tmp_path):
    (tmp_path / "notes").mkdir()
    for number in range(4):
        (tmp_path / "notes" / f"{number}.txt").write_text(f"Note {number}. " + "Words. " * 40)
    (tmp_path / "notes" / "scan.pdf").write_bytes(b"%PDF")
    recipe = tmp_path / "domain.yaml"
    recipe.write_text("task: language-modeling\ndata: {max_length: 32}\n")
    done = etude("inspect", tmp_path / "notes", "--model", model, "--recipe", recipe, "--rows", 2)
    assert done.code == 0, done.err
    assert "tokens 32 to " in done.out + done.err
    assert "scan.pdf" in done.out + done.err


def test_columns_and_keys_are_listed_as_read_or_not(etude, rows, model, tmp_path):
    listed = [json.loads(line) for line in rows.read_text().splitlines()]
    listed[4]["source"] = "web"
    rows.write_text("".join(json.dumps(row) + "\n" for row in listed))
    done = etude("inspect", rows, "--model", model, "--html", tmp_path / "page.html")
    assert done.code == 0
    lines = [" ".join(line.split()) for line in done.out.splitlines()]
    assert "column 'prompt' read in 12" in lines
    assert "column 'source' not read in 1 (rows.jsonl:5)" in lines
    assert "Columns and keys" in (tmp_path / "page.html").read_text()


def test_good_rows_are_shown_beside_those_that_are_refused(etude, rows, model):
    with rows.open("a") as stream:
        stream.write('{oops\n{"prompt": "x"}\n')
    done = etude("inspect", rows, "--model", model, "--rows", 1)
    assert done.code == 2
    assert "rows.jsonl:1" in done.out and "samples" in done.out
    assert "rows refused" in done.out
    (line,) = done.err.splitlines()
    assert "refused rows in all: 2 (rows.jsonl:13, rows.jsonl:14)" in line
    assert "--fix rows.fixed.jsonl`" in line
