"""`etude data check`: the table, the exit codes, the files it writes."""

from __future__ import annotations

import json
import re
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etude.cli import main

pytestmark = pytest.mark.integration


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
    assert "decoded with the wrong encoding" in out
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
    assert "empty answers" in (tmp_path / "f.html").read_text()
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


# Rows that cannot be read

DIGITS = "9" * 5000
DEEP = "[" * 200_000 + "]" * 200_000

BROKEN: dict[str, tuple[bytes, str]] = {
    "broken off": (b'{"prompt": "half', "is not JSON: Unterminated string"),
    "a list": (b'["prompt", "completion"]', "expected an object {column: value}, got list"),
    "huge integer": (
        f'{{"prompt": {DIGITS}, "completion": "a"}}'.encode(),
        "is not JSON: an integer has more than 4,300 digits",
    ),
    "nested": (
        f'{{"prompt": {DEEP}, "completion": "a"}}'.encode(),
        "is not JSON: lists and objects are nested more than 100 deep",
    ),
    "nested within Python's limit": (
        f'{{"prompt": "q", "completion": {"[" * 400}{"]" * 400}}}'.encode(),
        "is not JSON: lists and objects are nested more than 100 deep",
    ),
    "NaN": (b'{"prompt": NaN, "completion": "a"}', "column 'prompt' must be text, got nan"),
    "infinity": (b'{"prompt": "q", "completion": -Infinity}', "must be text, got -inf"),
    "null": (b'{"prompt": null, "completion": "a"}', "column 'prompt' must be text, got null"),
    "Latin-1": (
        b'{"prompt": "caf\xe9", "completion": "a"}',
        "a.jsonl is not UTF-8: byte 0xe9 in line 7",
    ),
    "unpaired surrogate": (
        rb'{"prompt": "\ud83d", "completion": "a"}',
        "unpaired surrogate",
    ),
}


def put(path, line: bytes):
    """Write twelve good rows with a line of one's own as the seventh."""
    lines = write(path).read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:6], line + b"\n", *lines[6:]]))
    return path


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_row_is_named_and_all_others_are_checked_and_written(etude, tmp_path, name):
    line, message = BROKEN[name]
    code, out, err = etude(put(tmp_path / "a.jsonl", line), "--fix", "b.jsonl", "--json", "c.json")
    assert (code, err) == (1, "")
    assert message in " ".join(out.split())
    assert "13 train rows, 1 of them unreadable (a.jsonl:7)" in out
    assert "b.jsonl: 13 rows read, 12 written, 1 left out" in out
    assert "left out, rows that cannot be read: 1 (a.jsonl:7)" in out
    assert (tmp_path / "b.jsonl").read_bytes() == write(tmp_path / "good.jsonl").read_bytes()
    content = json.loads((tmp_path / "c.json").read_text())
    assert (content["rows_in"], content["rows"]) == ({"train": 13}, {"train": 12})
    assert content["unreadable"] == {"train": ["a.jsonl:7"]}
    assert content["fixed"] == {
        "rows_in": 13,
        "rows_out": 12,
        "left_out": {"rows that cannot be read": ["a.jsonl:7"]},
        "repaired": [],
    }


def test_an_unreadable_row_is_counted_also_where_its_finding_is_not_wanted(etude, tmp_path):
    file = put(tmp_path / "a.jsonl", b"broken")
    code, out, _ = etude(file, "--only", "duplicates")
    assert code == 0
    assert "13 train rows, 1 of them unreadable (a.jsonl:7): nothing was found" in out


def test_rows_of_csv_and_parquet_that_cannot_be_read_are_named_too(etude, tmp_path):
    rows = [json.loads(line) for line in write(tmp_path / "a.jsonl").read_text().splitlines()]
    lines = ["prompt,completion", *(f"{row['prompt']},{row['completion']}" for row in rows)]
    lines[3:3] = ['"a quote that is not closed,x', "one cell"]
    (tmp_path / "a.csv").write_bytes("\n".join(lines).encode() + b"\nna\xefve,x\n")
    _, out, _ = etude("a.csv", "--fix", "b.jsonl")
    assert "15 rows read, 12 written, 3 left out" in out
    assert "(a.csv:4, a.csv:5, a.csv:16)" in out
    texts = pa.array([row["prompt"].encode() for row in rows] + [b"na\xefve"], pa.binary())
    answers = [row["completion"] for row in rows] + ["x"]
    pq.write_table(
        pa.table({"prompt": texts.view(pa.string()), "completion": answers}), tmp_path / "a.parquet"
    )
    _, out, _ = etude("a.parquet", "--fix", "c.jsonl")
    assert "13 rows read, 12 written, 1 left out" in out
    assert "(a.parquet:13)" in out
    assert (tmp_path / "b.jsonl").read_bytes() == (tmp_path / "c.jsonl").read_bytes()


def test_a_damaged_row_group_of_parquet_does_not_take_the_others_with_it(etude, tmp_path):
    write(tmp_path / "a.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    file = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(rows), file, row_group_size=4, use_dictionary=False)
    page = pq.ParquetFile(file).metadata.row_group(1).column(0).data_page_offset
    damaged = bytearray(file.read_bytes())
    damaged[page : page + 40] = b"\xff" * 40
    file.write_bytes(damaged)
    _, out, _ = etude(file, "--fix", "b.jsonl")
    assert "12 rows read, 8 written, 4 left out" in out
    assert "(a.parquet:5, a.parquet:6, a.parquet:7, a.parquet:8)" in out


@pytest.mark.parametrize(
    ("text", "bad"),
    [
        ('[\n {0},\n {1}"broken": ,\n {2}\n]', "a.json:2"),
        ('[{0}, {{"prompt" "completion"}}, {1}, {2}]', "a.json:2"),
        ('[\n {0},\n {{"prompt": "no end of it,\n {1},\n {2}\n]', "a.json:2"),
        ("[\n {0},\n 3,\n {1},\n {2}\n]", "a.json:2"),
        ("[{0}, {1}, {2}] [1]", "a.json:4"),
    ],
)
def test_a_broken_element_of_an_array_does_not_take_the_others_with_it(etude, tmp_path, text, bad):
    rows = write(tmp_path / "a.jsonl").read_text().splitlines()[:3]
    if '{1}"broken"' in text:
        text, rows[1] = text.replace('{1}"broken"', '{{"broken"'), ""
    (tmp_path / "a.json").write_text(text.format(*rows))
    _, out, _ = etude("a.json", "--fix", "b.jsonl")
    written = (tmp_path / "b.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in written] == [json.loads(row) for row in rows if row]
    assert f"rows that cannot be read: 1 ({bad})" in out


def test_a_run_refuses_a_broken_row_in_one_line_that_proposes_the_check(
    etude_command, tmp_path, tiny_llama
):
    put(tmp_path / "a.jsonl", DEEP.encode())
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"model: {tiny_llama()}\ndata:\n  train: a.jsonl\n")
    for verb in (["tune", "recipe.yaml"], ["data", "inspect", "--recipe", "recipe.yaml"]):
        done = etude_command(*verb, cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        (line,) = [part for part in done.stderr.splitlines() if "a.jsonl:7" in part]
        # A run names files by their whole path.
        offer = r"`etude data check \S*a\.jsonl --fix a\.fixed\.jsonl` names every such row"
        assert re.search(f"nested more than 100 deep; {offer}", line)
        assert "Traceback" not in done.stderr


def test_a_row_that_the_template_refuses_leaves_the_rest_of_its_batch_checked(etude, tmp_path):
    turns = [{"role": "assistant", "content": "It begins."}]
    rows = [json.loads(line) for line in write(tmp_path / "w.jsonl").read_text().splitlines()]
    talks = [
        [
            {"role": "user", "content": r["prompt"]},
            {"role": "assistant", "content": r["completion"]},
        ]
        for r in rows
    ]
    talks[2], talks[7][1]["content"] = turns, "word " * 2000
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"messages": t}) + "\n" for t in talks))
    etude("a.jsonl", "--json", "f.json", "--only", "tokens")
    found = {
        f["check"]: f["rows"] for f in json.loads((tmp_path / "f.json").read_text())["findings"]
    }
    assert found == {"not-trainable": ["a.jsonl:3"], "too-long": ["a.jsonl:8"]}


def test_columns_that_nothing_reads_are_listed_with_their_rows(etude, tmp_path):
    file = write(tmp_path / "a.jsonl", persona="a pirate")
    code, out, _ = etude(file)
    assert code == 0
    assert "note  column 'persona': not read  1  [unread]" in out
    assert "data.system_column" in out and "a.jsonl:4" in out
    code, out, _ = etude(file, "--skip", "unread")
    assert "12 train rows: nothing was found" in out


def test_the_label_of_a_class_is_read(etude, tmp_path):
    (tmp_path / "a.csv").write_text(
        "text,label,id\n"
        + "".join(f"The {word} is {n}.,{n % 2},{n}\n" for n, word in enumerate("abcdefgh"))
    )
    (tmp_path / "r.yaml").write_text("task: text-classification\ndata: {train: a.csv}\n")
    code, out, _ = etude("--recipe", "r.yaml", "--only", "unread")
    assert code == 0
    assert "column 'id': not read  8" in out
    assert "'label'" not in out


def test_every_row_that_the_template_refuses_is_named(etude, tmp_path):
    rows = [
        {"messages": [{"role": role, "content": f"{n}{role}"} for role in roles]}
        for n, roles in enumerate(
            [["user", "assistant"], ["system", "user", "assistant"], ["assistant"]] * 3
        )
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, out, _ = etude("a.jsonl", "--only", "not-trainable")
    assert "samples that cannot be trained on  3" in out
    assert all(f"a.jsonl:{n}: the conversation begins with its answer" in out for n in (3, 6, 9))
