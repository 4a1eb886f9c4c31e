"""`etude data check`: the table, the exit codes, the files it writes."""

from __future__ import annotations

import json
import sys

import pytest

from etude.cli import main


@pytest.fixture
def etude(monkeypatch, capsys, tmp_path, tiny_llama):
    monkeypatch.chdir(tmp_path)
    model = tiny_llama()
    capsys.readouterr()

    def run(*arguments) -> tuple[int, str, str]:
        argv = ["etude", "data", "check", *map(str, arguments), "--model", str(model)]
        monkeypatch.setattr(sys, "argv", argv)
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run


def write(path, count=12, **change):
    words = [
        "river",
        "engine",
        "garden",
        "market",
        "teacher",
        "window",
        "bridge",
        "letter",
        "harbour",
        "lamp",
        "rope",
    ]
    rows = [
        {"prompt": f"Why does the {word} number {i} stand?", "completion": f"It is {i}."}
        for i, word in zip(range(count), [*words, *words], strict=False)
    ]
    rows[3] |= change
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def test_clean_data_exit_with_0_and_say_so(etude, tmp_path):
    code, out, _ = etude(write(tmp_path / "a.jsonl"))
    assert code == 0
    assert "12 train rows: nothing was found" in out


def test_an_error_exits_with_1_and_a_warning_only_when_strict(etude, tmp_path):
    code, out, _ = etude(write(tmp_path / "a.jsonl", completion="The cafÃ© is closed."))
    assert code == 1
    assert "read in the wrong encoding" in out
    assert "a.jsonl:4" in out
    file = write(tmp_path / "b.jsonl", completion="Ask anna@firma-mueller.de about it.")
    code, out, _ = etude(file)
    assert code == 0
    assert "a***@***.de" in out
    assert "firma-mueller" not in out
    assert etude(file, "--strict")[0] == 1
    assert etude(file, "--strict", "--skip", "private")[0] == 0


def test_a_fixed_file_a_page_and_json_are_written(etude, tmp_path):
    file = write(tmp_path / "a.jsonl", completion="")
    code, out, _ = etude(file, "--fix", "fixed.jsonl", "--html", "f.html", "--json", "f.json")
    assert code == 1
    assert "rows with an empty answer: 1" in out
    assert len((tmp_path / "fixed.jsonl").read_text().splitlines()) == 11
    assert "answers without a word" in (tmp_path / "f.html").read_text()
    content = json.loads((tmp_path / "f.json").read_text())
    assert content["findings"][0]["rows"] == ["a.jsonl:4"]
    assert etude("fixed.jsonl")[0] == 0


def test_json_on_standard_output_is_nothing_but_json(etude, tmp_path):
    code, out, _ = etude(write(tmp_path / "a.jsonl", prompt=""), "--json", "-")
    content = json.loads(out)
    assert code == 1 or content["findings"]
    assert {finding["check"] for finding in content["findings"]} >= {"empty-prompts"}


def test_bad_arguments_are_one_line_and_exit_code_2(etude, tmp_path):
    file = write(tmp_path / "a.jsonl")
    for arguments, message in (
        (("missing.jsonl",), "no data file at missing.jsonl"),
        ((file, "--only", "duplicats"), "did you mean 'duplicates'"),
        ((file, "--fix", file), "name another file"),
        ((), "name a data file, or a recipe"),
    ):
        code, _, err = etude(*arguments)
        assert code == 2, arguments
        assert message in err
        assert err.count("\n") == 1
