"""`etude tune`, `predict`, `data inspect` and `data check` with words and tags."""

from __future__ import annotations

import json

import pytest

ROWS = "Aspirin\tB-Drug\nhelps\tO\n{n}\tO\n\nno\tO\nlithium\tB-Drug\ncarbonate\tI-Drug\n{n}\tO\n"


@pytest.fixture
def data(tmp_path):
    file = tmp_path / "rows.tsv"
    file.write_text("\n".join(ROWS.format(n=number) for number in range(20)), "utf-8")
    return file


KEYS = (
    "task=token-classification",
    "quant.kind=none",
    "train.max_steps=1",
    "train.threads=1",
    "model.dtype=float32",
)


def settings(*more):
    return [word for key in (*KEYS, *more) for word in ("--set", key)]


def test_a_decoder_is_tuned_and_predicts_entities_of_texts_and_rows(
    data, tmp_path, tiny_llama, etude_command
):
    model = tiny_llama(layers=1)
    done = etude_command(
        "tune",
        "token-classification",
        "--data",
        data,
        *settings(f"model.id={model}", "data.eval_fraction=0.3"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    said = " ".join((done.stdout + done.stderr).split())
    assert "tags: BIO, 1 type of entities (Drug)" in said
    texts = tmp_path / "inputs.txt"
    texts.write_text("Aspirin helps.\n\nno lithium carbonate\n", "utf-8")
    for source, first in ((texts, "Aspirin helps."), (data, ["Aspirin", "helps", "0"])):
        done = etude_command("predict", "latest", source, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        found = [json.loads(line) for line in done.stdout.splitlines()]
        assert found[0]["input"] == first
        assert len(found) == (2 if source == texts else 40)
        for line in found:
            text = line["input"] if isinstance(line["input"], str) else " ".join(line["input"])
            for span in line["spans"]:
                assert text[span["start"] : span["end"]] == span["text"]
                assert 0.0 <= span["probability"] <= 1.0


def test_inspect_shows_first_pieces_entities_and_counts(data, tmp_path, tiny_llama, etude_command):
    options = ["--model", tiny_llama(layers=1), "--set", "task=token-classification", "--rows", 2]
    done = etude_command("data", "inspect", data, *options)
    assert done.returncode == 0, done.stderr
    assert "entities: Aspirin (Drug)" in done.stdout
    assert "entities: lithium carbonate (Drug)" in done.stdout
    assert "tags: BIO, 1 type of entities (Drug)" in done.stdout
    words = sum(1 for line in data.read_text("utf-8").splitlines() if line)
    assert f"{words} (" in done.stdout  # as many trained tokens as words
    short = etude_command("data", "inspect", data, *options, "--set", "data.max_length=8")
    assert "sentences longer than data.max_length" in " ".join(short.stdout.split())


def test_check_finds_what_is_wrong_with_tags(data, tmp_path, etude_command):
    options = ["--set", "task=token-classification"]
    whole = data.read_text("utf-8")
    data.write_text(whole + "\na\tO\nb\tI-drug\n\nc\tB-drug\n", "utf-8")
    line = whole.count("\n") + 2
    held_out = tmp_path / "eval.conll"
    held_out.write_text("Rome\tB-Place\n", "utf-8")
    report = tmp_path / "found.json"
    done = etude_command(
        "data", "check", data, "--eval", held_out, *options, "--only", "tags", "--json", report
    )
    assert done.returncode == 1, done.stderr
    found = {f["check"]: f for f in json.loads(report.read_text("utf-8"))["findings"]}
    assert set(found) == {"broken-tags", "unseen-types", "rare-types", "type-spelling"}
    assert found["broken-tags"]["rows"] == [f"rows.tsv:{line}"]
    assert found["unseen-types"]["rows"] == ["eval.conll:1"]
    assert found["type-spelling"]["rows"] == [f"rows.tsv:{line}", f"rows.tsv:{line + 3}"]
    data.write_text("a\tB-X\n\nb\tO\nc\tPER\n", "utf-8")
    data = data.rename(tmp_path / "rows.conll")
    done = etude_command("data", "check", data, *options, "--only", "mixed-tags")
    assert "mixed-tags" in done.stdout
    assert "'PER' in 1 (rows.conll:3)" in " ".join(done.stdout.split())
