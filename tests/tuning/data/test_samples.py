"""Files to samples: every kind of file, every kind of fault, and who is held out."""

from __future__ import annotations

import csv
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from etude.core.errors import DataError
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.draws import content_key
from etude.tuning.data.samples import load_samples, split_samples
from etude.tuning.data.schema import Sample

ROWS = [{"prompt": f"q{i}, “quoted”\nline", "completion": f"a{i}\tx"} for i in range(5)]


def load(path: Path, **fields: Any) -> list[Sample]:
    """Load all rows of a file as training samples."""
    return load_samples(DataSpec(train=str(path), eval_fraction=0.0, **fields), 0).train


def write(path: Path, text: str | bytes) -> Path:
    """Write a file and return it."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def as_turns(sample: Sample) -> list[tuple[str, str]]:
    return [(turn.role, turn.content) for turn in sample.messages]


# Kinds of files


def write_rows(folder: Path, kind: str) -> Path:
    path = folder / f"rows.{kind}"
    if kind in ("jsonl", "ndjson"):
        return write(path, "".join(json.dumps(row) + "\n" for row in ROWS))
    if kind == "json":
        return write(path, json.dumps(ROWS, indent=1))
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
        return path
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(
            stream, ["prompt", "completion"], delimiter="\t" if kind == "tsv" else ","
        )
        writer.writeheader()
        writer.writerows(ROWS)
    return path


@pytest.mark.parametrize("kind", ["jsonl", "ndjson", "json", "csv", "tsv", "parquet"])
def test_every_kind_of_file_gives_the_same_samples(tmp_path, kind):
    samples = load(write_rows(tmp_path, kind))
    assert [as_turns(sample) for sample in samples] == [
        [("user", row["prompt"]), ("assistant", row["completion"])] for row in ROWS
    ]


def test_origins_name_the_line_that_a_row_begins_on(tmp_path):
    assert [
        s.origin for s in load(write(tmp_path / "a.jsonl", '{"text": "x"}\n\n{"text": "y"}'))
    ] == [
        "a.jsonl:1",
        "a.jsonl:3",
    ]
    file = write(tmp_path / "a.csv", 'prompt,completion\n"two\nlines",b\nc,d\n')
    assert [sample.origin for sample in load(file)] == ["a.csv:2", "a.csv:4"]


def test_a_json_file_of_one_object_a_line_is_read_as_lines(tmp_path):
    file = write(tmp_path / "a.json", '{"text": "x"}\n{"text": "y"}\n')
    assert [sample.text for sample in load(file)] == ["x", "y"]


def test_a_text_file_gives_a_sample_a_paragraph(tmp_path):
    file = write(tmp_path / "a.txt", "\n\nOne\ntwo\n\n \nThree\n")
    assert [(s.text, s.origin) for s in load(file)] == [
        ("One\ntwo", "a.txt:3"),
        ("Three", "a.txt:7"),
    ]


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path):
    file = write(tmp_path / "a.csv", b"\xef\xbb\xbfprompt,completion\nq,a\n")
    assert as_turns(load(file)[0]) == [("user", "q"), ("assistant", "a")]


def test_a_file_is_read_as_a_stream_and_only_the_samples_drawn_are_kept(tmp_path):
    file = tmp_path / "large.jsonl"
    with file.open("w") as stream:
        for number in range(20_000):
            stream.write(
                json.dumps({"prompt": f"{number} " + "x" * 1000, "completion": "y"}) + "\n"
            )
    tracemalloc.start()
    split = load_samples(DataSpec(train=str(file), max_train=50, max_eval=10), 0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (len(split.train), len(split.eval)) == (50, 10)
    # The file has 20 MB; a tenth of it leaves room for buffers and the samples drawn.
    assert peak < file.stat().st_size / 10


# Kinds of rows


def test_messages_are_read_with_roles_and_parts_of_text(tmp_path):
    row = {
        "messages": [
            {
                "role": "user",
                "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
            },
            {"role": "assistant", "content": "c", "tool_calls": None},
        ]
    }
    (sample,) = load(write(tmp_path / "a.jsonl", json.dumps(row)))
    assert as_turns(sample) == [("user", "ab"), ("assistant", "c")]


def test_messages_are_read_from_nested_parquet(tmp_path):
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    pq.write_table(pa.Table.from_pylist([{"messages": turns}] * 2), tmp_path / "a.parquet")
    samples = load(tmp_path / "a.parquet")
    assert [as_turns(sample) for sample in samples] == [[("user", "a"), ("assistant", "b")]] * 2
    assert samples[1].origin == "a.parquet:2"


def test_templates_are_filled_from_columns(tmp_path):
    file = write(tmp_path / "a.csv", "question,unit,answer\nHow far?,km,12\n")
    (sample,) = load(file, prompt="{question} {{in}} {unit}", completion="answer")
    assert as_turns(sample) == [("user", "How far? {in} km"), ("assistant", "12")]


def test_a_system_message_goes_before_conversations_that_have_none(tmp_path):
    rows = [
        {"messages": [{"role": "user", "content": "a"}]},
        {"messages": [{"role": "system", "content": "own"}, {"role": "user", "content": "a"}]},
    ]
    file = write(tmp_path / "a.jsonl", "\n".join(json.dumps(row) for row in rows))
    assert [sample.messages[0].content for sample in load(file, system="Be brief.")] == [
        "Be brief.",
        "own",
    ]


def test_numbers_in_a_column_are_text(tmp_path):
    file = write(tmp_path / "a.jsonl", '{"prompt": 3, "completion": 0.5}')
    assert as_turns(load(file)[0]) == [("user", "3"), ("assistant", "0.5")]


def test_gsm8k_is_read_whole(shared_data):
    file = shared_data / "instruct/gsm8k/train.jsonl"
    split = load_samples(DataSpec(train=str(file), prompt="question", completion="answer"), 0)
    assert len(split.train) + len(split.eval) == 7473
    assert 300 < len(split.eval) < 450  # 5 %, give or take four standard deviations
    assert "#### " in split.train[0].messages[-1].content


def test_banking77_is_read_with_its_quotes_and_line_ends(shared_data):
    file = shared_data / "topic/banking77/train.csv"
    samples = load(file, prompt="text", completion="category")
    assert len(samples) == 10_003
    assert len({sample.messages[-1].content for sample in samples}) == 77


# Faults, each one line that says what, where, and what to do


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", "", r"a\.jsonl is empty"),
        ("a.jsonl", "\n\n", r"a\.jsonl contains no rows"),
        ("a.csv", "prompt,completion\n", r"a\.csv contains no rows"),
        ("a.json", "[]", r"a\.json contains no rows"),
        ("a.jsonl", '{"text": "x"}\n{"text": \n', r"a\.jsonl:2 is not JSON: .*column"),
        ("a.jsonl", '{"text": "x"}\n[1]\n', r"a\.jsonl:2: expected an object .*, got list"),
        ("a.json", '[{"text": "x"},\n {"text"]', r"a\.json:2 is not JSON"),
        ("a.json", '"text"', r"must contain an array of objects"),
        ("a.jsonl", b'{"text": "caf\xe9"}\n', r"a\.jsonl is not UTF-8: byte 0xe9 in line 1"),
        ("a.csv", b"text\nok\ncaf\xe9\n", r"a\.csv is not UTF-8: byte 0xe9 in line 3"),
        ("a.csv", "prompt,completion\na,b\nc\n", r"a\.csv:3: 1 cells where the header names 2"),
        ("a.csv", 'prompt,completion\na,b\n"c,d\n', r"a\.csv:3 cannot be read: .*end of data"),
        ("a.csv", "text,text\na,b\n", r"a\.csv:1: duplicate column names"),
        ("a.parquet", "PAR1 not really", r"a\.parquet cannot be read as Parquet"),
        ("a.xlsx", "x", r"unknown file type '\.xlsx'; known: .*\.csv, .*\.json, \.jsonl"),
        ("a.jsonl", '{"question": "x"}', r"a\.jsonl:1: expected a column .* has 'question'"),
        (
            "a.jsonl",
            '{"prompt": "x", "completion": "y"}\n{"prompt": "x", "completions": "y"}',
            r"a\.jsonl:2: no column 'completion' \(data.completion\) \(did you mean 'completions'",
        ),
        (
            "a.jsonl",
            '{"text": "x"}\n{"text": null}',
            r"a\.jsonl:2: .*'text' must be text, got null",
        ),
        ("a.jsonl", '{"messages": []}', r"a\.jsonl:1: 'messages' must be a list"),
        ("a.jsonl", '{"messages": ["hi"]}', r"message 1 must be \{role, content\}, got 'hi'"),
        (
            "a.jsonl",
            '{"messages": [{"role": "humans", "content": "x"}]}',
            r"a\.jsonl:1: message 1: unknown role 'humans' \(did you mean 'human'\?\); known: ",
        ),
        (
            "a.jsonl",
            '{"messages": [{"role": "user", "value": "x"}]}',
            r"a\.jsonl:1: message 1 has no content; it has 'role', 'value'",
        ),
        (
            "a.jsonl",
            '{"messages": [{"role": "user", "content": [{"type": "image"}]}]}',
            r"only content of type 'text'",
        ),
        (
            "a.jsonl",
            '{"messages": [{"role": "assistant", "content": "", "tool_calls": [{}]}]}',
            r"a\.jsonl:1: message 1, tool call 1 must be \{name, arguments\}, got \{\}",
        ),
        ("a.jsonl", r'{"text": "ok \ud83d"}', r"a\.jsonl:1: .* unpaired surrogate, '\\ud83d'"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(tmp_path, name, content, message):
    with pytest.raises(DataError, match=message) as caught:
        load(write(tmp_path / name, content))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused_and_a_near_one_named(tmp_path):
    write(tmp_path / "train.jsonl", "{}")
    with pytest.raises(DataError, match=r"no data file at .*trian\.jsonl.*mean 'train\.jsonl'"):
        load(tmp_path / "trian.jsonl")
    with pytest.raises(DataError, match="is a folder"):
        load(tmp_path)


@pytest.mark.parametrize("template", ["{question", "{}", "{question!r}", "{question:>9}", "no}"])
def test_a_template_that_is_none_is_refused(tmp_path, template):
    file = write(tmp_path / "a.jsonl", '{"question": "x", "answer": "y"}')
    with pytest.raises(DataError, match=r"data\.prompt: "):
        load(file, prompt=template, completion="answer")


# Hub


def test_a_data_set_is_loaded_with_its_splits(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    for split in ("train", "test"):
        rows = [{"prompt": f"{split} {i}", "completion": "a"} for i in range(3)]
        write(folder / f"{split}.jsonl", "\n".join(json.dumps(row) for row in rows))
    split = load_samples(DataSpec(kind="hub", train=str(folder), eval_split="test"), 0)
    assert [sample.messages[0].content for sample in split.train] == [
        "train 0",
        "train 1",
        "train 2",
    ]
    assert [sample.messages[0].content for sample in split.eval] == ["test 0", "test 1", "test 2"]


def test_a_data_set_that_cannot_be_reached_is_one_line(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"cannot load the data set 'etude-ml/none'") as caught:
        load_samples(DataSpec(kind="hub", train="etude-ml/none"), 0)
    assert "\n" not in str(caught.value)


# Who is held out


def plain(texts: list[str]) -> list[Sample]:
    return [Sample.plain(text, f"f:{place}") for place, text in enumerate(texts, start=1)]


@given(st.lists(st.text("ab ", min_size=1, max_size=4), min_size=2, max_size=80), st.integers(0, 9))
@example(["a", "aaaa"], 0)  # chance would hold both out
def test_equal_rows_are_on_one_side_and_no_row_is_lost(texts, seed):
    samples = plain(texts)
    if len({content_key(sample) for sample in samples}) < 2:
        return
    split = split_samples(samples, None, DataSpec(train="f", eval_fraction=0.2), seed)
    train = {content_key(sample) for sample in split.train}
    held_out = {content_key(sample) for sample in split.eval}
    assert train and held_out and not train & held_out
    origins = sorted(sample.origin for sample in [*split.train, *split.eval])
    assert origins == sorted(sample.origin for sample in samples)


def test_the_share_held_out_is_what_the_recipe_says():
    samples = plain([f"text {i}" for i in range(10_000)])
    split = split_samples(samples, None, DataSpec(train="f", eval_fraction=0.1), 0)
    assert abs(len(split.eval) - 1000) < 4 * (10_000 * 0.1 * 0.9) ** 0.5


def test_another_seed_holds_out_others_and_more_rows_move_none():
    spec = DataSpec(train="f", eval_fraction=0.1)
    samples = plain([f"text {i}" for i in range(1000)])

    def held_out(samples: list[Sample], seed: int) -> set[str]:
        return {sample.origin for sample in split_samples(samples, None, spec, seed).eval}

    assert held_out(samples, 0) == held_out(samples, 0) != held_out(samples, 1)
    assert held_out(samples[:500], 0) == held_out(samples, 0) & {s.origin for s in samples[:500]}


def test_a_short_file_still_has_something_to_evaluate_on():
    for seed in range(20):
        split = split_samples(plain(["a", "b", "c"]), None, DataSpec(train="f"), seed)
        assert split.train and split.eval


def test_a_file_of_one_row_cannot_be_split():
    with pytest.raises(DataError, match="no training samples are left"):
        split_samples(plain(["a", "a "]), None, DataSpec(train="f"), 0)


def test_a_training_row_that_is_in_the_evaluation_file_is_left_out(tmp_path):
    train = write(tmp_path / "train.jsonl", '{"text": "a"}\n{"text": "b"}\n{"text": "c"}')
    held_out = write(tmp_path / "eval.jsonl", '{"text": " b"}\n{"text": "d"}')
    split = load_samples(DataSpec(train=str(train), eval=str(held_out)), 0)
    assert [sample.text for sample in split.train] == ["a", "c"]
    assert split.notes == ["dropped 1 training samples that are also in the evaluation data"]


def test_a_draw_is_seeded_of_its_size_and_in_the_order_of_the_file():
    samples = plain([f"text {i}" for i in range(500)])
    spec = DataSpec(train="f", eval_fraction=0.0, max_train=40)
    first, again, other = (split_samples(samples, None, spec, seed).train for seed in (0, 0, 1))
    assert first == again != other
    assert len(first) == 40
    assert [samples.index(sample) for sample in first] == sorted(map(samples.index, first))
