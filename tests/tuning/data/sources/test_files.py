"""Files as people have them: compressed, in other encodings, aligned by line, several at once."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from etude.core.errors import DataError
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.account import Account
from etude.tuning.data.check.linter import read_entries
from etude.tuning.data.draws import MixedDraw
from etude.tuning.data.samples import load_samples
from etude.tuning.data.schema import DataSplit, Sample
from etude.tuning.data.sources import standard_input

ROWS = [{"prompt": f"Größe {i}, bitte?", "completion": f"Es sind {i}; “so”."} for i in range(40)]
TEXT = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


def split_of(train: Any, **fields: Any) -> DataSplit:
    return load_samples(DataSpec(**{"train": train, "eval_fraction": 0.0, **fields}), 0)


def pairs(split: DataSplit) -> list[dict[str, str]]:
    return [{"prompt": s.messages[-2].content, "completion": s.messages[-1].content}
            for s in split.train]  # fmt: skip


def zstd(content: bytes) -> bytes:
    # Two frames, as a file that was appended to has.
    half = len(content) // 2
    codec = pa.Codec("zstd")
    frames = [codec.compress(part, asbytes=True) for part in (content[:half], content[half:])]
    return b"".join(frames)


PACKED = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstd}


# Compression


@pytest.mark.parametrize("suffix", PACKED)
@pytest.mark.parametrize("kind", ["jsonl", "json", "csv"])
def test_a_compressed_file_is_read_as_the_file_that_it_holds(tmp_path, suffix, kind):
    text = TEXT if kind == "jsonl" else json.dumps(ROWS, ensure_ascii=False)
    if kind == "csv":
        text = "prompt,completion\n" + "".join(
            f'"{row["prompt"]}","{row["completion"]}"\n' for row in ROWS
        )
    file = tmp_path / f"rows.{kind}.{suffix}"
    file.write_bytes(PACKED[suffix](text.encode()))
    split = split_of(str(file))
    assert pairs(split) == ROWS
    assert split.train[0].origin == f"rows.{kind}.{suffix}:{2 if kind == 'csv' else 1}"


@pytest.mark.parametrize("suffix", PACKED)
def test_what_a_damaged_archive_still_holds_is_read_by_the_check(tmp_path, suffix):
    rows = [{"prompt": f"{n} {hash((n, 'x'))}", "completion": f"{n}"} for n in range(20_000)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    whole = PACKED[suffix](text.encode())
    file = tmp_path / f"rows.jsonl.{suffix}"
    file.write_bytes(whole[: len(whole) - 200])
    spec = DataSpec(train=str(file), eval_fraction=0.0)
    entries, refused = read_entries(spec, 0)
    assert 0 < len(entries) < len(rows) or suffix in ("bz2", "zst")
    assert len(refused) == 1
    assert refused[0].origin == f"rows.jsonl.{suffix}:{len(entries) + 1}"
    with pytest.raises(DataError, match=rf"rows\.jsonl\.{suffix}:\d+: nothing from here on can be"):
        split_of(str(file))


def test_a_compressed_file_that_does_not_say_what_it_holds_is_refused(tmp_path):
    file = tmp_path / "rows.gz"
    file.write_bytes(gzip.compress(TEXT.encode()))
    with pytest.raises(DataError, match=r"unknown file type '' before \.gz; known: .*\.zst"):
        split_of(str(file))
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "rows.parquet")
    packed = tmp_path / "rows.parquet.gz"
    packed.write_bytes(gzip.compress((tmp_path / "rows.parquet").read_bytes()))
    with pytest.raises(DataError, match=r"Parquet is compressed inside; unpack \.gz first"):
        split_of(str(packed))


# Encodings and separators


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
@pytest.mark.parametrize("packed", [False, True])
def test_unicode_of_any_width_is_told_by_how_it_begins(tmp_path, encoding, packed):
    file = tmp_path / ("rows.jsonl.gz" if packed else "rows.jsonl")
    content = TEXT.encode(encoding)
    file.write_bytes(gzip.compress(content) if packed else content)
    assert pairs(split_of(str(file))) == ROWS


def test_an_encoding_that_cannot_be_told_is_asked_for(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_bytes("prompt;completion\nWie groß?;Größe 3\nWie?;So\n".encode("cp1252"))
    with pytest.raises(
        DataError, match=r"byte 0xdf in line 2 \('ß' in cp1252\).*data\.encoding.*--fix"
    ):
        split_of(str(file))
    assert pairs(split_of(str(file), encoding="cp1252"))[0] == {
        "prompt": "Wie groß?",
        "completion": "Größe 3",
    }
    file.write_bytes(b"prompt,completion\nx,\x81\n")
    with pytest.raises(DataError, match="is not cp1252: byte 0x81 in line 2"):
        split_of(str(file), encoding="cp1252")
    with pytest.raises(ValidationError, match="Python knows no encoding 'cp12520'"):
        DataSpec(encoding="cp12520")


def test_utf_16_that_is_cut_short_is_one_line(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_bytes(TEXT.encode("utf-16")[:-1])
    with pytest.raises(DataError, match=r"rows\.jsonl cannot be decoded"):
        split_of(str(file))


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("suffix", ["csv", "tsv"])
@pytest.mark.parametrize("named", [False, True])
def test_the_separator_is_told_by_the_header(tmp_path, separator, suffix, named):
    file = tmp_path / f"rows.{suffix}"
    lines = [["prompt", "completion"], ['"Hi, you; there|"', "Ho"], ["a", '"b ""c"""']]
    text = "".join(separator.join(cells) + "\r\n" for cells in lines)
    file.write_text((f"sep={separator}\r\n" if named else "") + text, newline="")
    split = split_of(str(file))
    assert pairs(split) == [
        {"prompt": "Hi, you; there|", "completion": "Ho"},
        {"prompt": "a", "completion": 'b "c"'},
    ]
    assert split.train[0].origin == f"rows.{suffix}:{3 if named else 2}"


def test_a_separator_may_be_named(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text("prompt~completion\na~b\n")
    assert pairs(split_of(str(file), separator="~")) == [{"prompt": "a", "completion": "b"}]
    assert DataSpec(separator="tab").separator == DataSpec(separator="\t").separator == "\t"
    with pytest.raises(ValidationError, match="must be one character"):
        DataSpec(separator="::")
    file.write_text('prompt,completion\n"a \\"b\\" c",d\n')
    with pytest.raises(DataError, match=r"rows\.csv:2 cannot be read.*written twice"):
        split_of(str(file))


# Two files of aligned lines


def test_two_aligned_files_are_prompts_and_completions(tmp_path):
    (tmp_path / "train.de").write_text("Guten Tag\n\nNacht", "utf-8")
    (tmp_path / "train.en.gz").write_bytes(gzip.compress(b"Good day\r\nnothing\r\nNight\r\n"))
    files = {"prompts": f"{tmp_path}/train.de", "completions": f"{tmp_path}/train.en.gz"}
    split = split_of(files)
    assert pairs(split) == [
        {"prompt": "Guten Tag", "completion": "Good day"},
        {"prompt": "", "completion": "nothing"},
        {"prompt": "Nacht", "completion": "Night"},
    ]
    assert [sample.origin for sample in split.train] == ["train.de:1", "train.de:2", "train.de:3"]
    told = split_of(files, prompt="Translate: {prompt}", system="Be exact.")
    assert told.train[0].messages[1].content == "Translate: Guten Tag"


def test_aligned_files_of_unequal_length_are_one_error_with_both_counts(tmp_path):
    (tmp_path / "a.txt").write_text("1\n2\n3\n")
    (tmp_path / "b.txt").write_text("1\n2")
    files = {"prompts": f"{tmp_path}/a.txt", "completions": f"{tmp_path}/b.txt"}
    with pytest.raises(DataError, match=r"a\.txt has 3 lines and \S*b\.txt 2;"):
        split_of(files)
    (tmp_path / "b.txt").write_bytes(b"1\n\xff\n3")
    with pytest.raises(DataError, match=r"b\.txt is not UTF-8: byte 0xff in line 2"):
        split_of(files)
    with pytest.raises(DataError, match="no data file at"):
        split_of({**files, "completions": f"{tmp_path}/c.txt"})
    for wrong in ({"prompts": "a"}, {"path": "a", "prompts": "b", "completions": "c"}, {}):
        with pytest.raises(ValidationError, match=r"\{path\}, or \{prompts, completions\}"):
            DataSpec(train=[wrong])


# Several files


def write(file: Path, count: int, word: str) -> Path:
    file.parent.mkdir(exist_ok=True)
    file.write_text(
        "".join(
            json.dumps({"prompt": f"{word} {n}?", "completion": f"{n}"}) + "\n"
            for n in range(count)
        )
    )
    return file


def words(split: DataSplit) -> list[str]:
    return [sample.messages[0].content.split()[0] for sample in split.train]


def test_several_files_are_read_one_after_the_other(tmp_path):
    files = [write(tmp_path / "x" / "a.jsonl", 3, "x"), write(tmp_path / "y" / "a.jsonl", 2, "y")]
    split = split_of([str(file) for file in files], eval=[str(files[1])])
    assert words(split) == ["x"] * 3  # the others are evaluated on
    split = split_of([str(file) for file in files])
    assert words(split) == ["x", "x", "x", "y", "y"]
    # Files of one name are told apart.
    assert [sample.origin for sample in split.train][2:4] == ["x/a.jsonl:3", "y/a.jsonl:1"]
    assert "samples read: 3 from x/a.jsonl, 2 from y/a.jsonl" in split.notes
    with pytest.raises(DataError, match=r"lists \S*a\.jsonl twice"):
        split_of([str(files[0]), str(files[0])])
    with pytest.raises(DataError, match=r"y/a\.jsonl:2 is not JSON.*check --recipe"):
        files[1].write_text('{"prompt": "a", "completion": "b"}\n{')
        split_of([str(file) for file in files])


def test_weights_are_the_shares_of_the_files(tmp_path):
    files = [write(tmp_path / f"{name}.jsonl", 100, name) for name in ("a", "b", "c")]
    listed = [{"path": str(f), "weight": w} for f, w in zip(files, (5, 3, 2), strict=True)]
    split = split_of(listed)
    counts = {name: words(split).count(name) for name in "abc"}
    assert counts == {"a": 100, "b": 60, "c": 40}
    assert len({sample.origin for sample in split.train}) == 200  # none twice
    (note,) = [note for note in split.notes if "by weight" in note]
    assert "100 of 100 from a.jsonl (50.0%), 60 of 100 from b.jsonl (30.0%)" in note
    again = split_of(listed)
    assert [s.origin for s in again.train] == [s.origin for s in split.train]
    other = load_samples(DataSpec(train=listed, eval_fraction=0.0), 1)
    assert [s.origin for s in other.train] != [s.origin for s in split.train]
    few = split_of(listed, max_train=20)
    assert [words(few).count(name) for name in "abc"] == [10, 6, 4]
    # The check sees every row.
    entries, refused = read_entries(DataSpec(train=listed, eval_fraction=0.0), 0)
    assert (len(entries), refused) == (300, [])


def test_held_out_samples_are_not_drawn(tmp_path):
    files = [write(tmp_path / f"{name}.jsonl", 200, name) for name in ("a", "b")]
    listed = [{"path": str(f), "weight": w} for f, w in zip(files, (1, 3), strict=True)]
    split = split_of(listed, eval_fraction=0.2)
    held = {sample.origin for sample in split.eval}
    assert held
    assert not held & {sample.origin for sample in split.train}
    assert words(split).count("b") == pytest.approx(3 * words(split).count("a"), abs=3)


@given(
    counts=st.lists(st.integers(1, 40), min_size=2, max_size=4),
    weights=st.lists(st.floats(0.1, 10), min_size=4, max_size=4),
    limit=st.one_of(st.none(), st.integers(5, 60)),
)
def test_no_file_gives_more_than_its_share_or_than_it_has(counts, weights, limit):
    named = {f"f{n}": weight for n, weight in enumerate(weights[: len(counts)])}
    draw = MixedDraw(named, limit, 7)
    for name, count in zip(named, counts, strict=True):
        for line in range(count):
            turns = (("user", f"{name} {line}"), ("assistant", "x"))
            draw.add(Sample.conversation(*turns, origin=f"{name}:{line + 1}"))
    whole = sum(named.values())
    exact = min(
        count * whole / weight for count, weight in zip(counts, named.values(), strict=True)
    )
    exact = min(exact, limit or exact)
    try:
        drawn = [sample.origin.split(":")[0] for sample in draw.samples()]
    except DataError as error:
        assert "leave no sample" in str(error)
        return
    for (name, weight), count in zip(named.items(), counts, strict=True):
        share = exact * weight / whole
        assert drawn.count(name) <= count
        assert share - 1 < drawn.count(name) <= share + 1e-6


def test_weights_that_make_no_sense_are_refused(tmp_path):
    file = write(tmp_path / "a.jsonl", 3, "a")
    with pytest.raises(ValidationError, match="give every file a weight, or none"):
        DataSpec(train=[{"path": "a", "weight": 1}, "b"])
    with pytest.raises(ValidationError, match="every evaluation row is used"):
        DataSpec(train="a", eval=[{"path": "b", "weight": 1}])
    for weight in (0, -1, float("inf")):
        with pytest.raises(ValidationError, match="weight"):
            DataSpec(train=[{"path": "a", "weight": weight}])
    with pytest.raises(ValidationError, match="an empty list names no data file"):
        DataSpec(train=[])
    with pytest.raises(DataError, match=r"data\.kind: hub takes one data set"):
        split_of([str(file)], kind="hub")


# Standard input


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (TEXT.encode(), "stdin.jsonl"),
        (json.dumps(ROWS).encode(), "stdin.json"),
        (gzip.compress(TEXT.encode()), "stdin.jsonl.gz"),
        (zstd(TEXT.encode()), "stdin.jsonl.zst"),
        (TEXT.encode("utf-16"), "stdin.jsonl"),
        (b"prompt\tcompletion\nx\ty\n", "stdin.csv"),
    ],
)
def test_standard_input_is_stored_under_a_name_that_says_its_kind(
    tmp_path, monkeypatch, content, name
):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    file = standard_input.store(tmp_path / "data")
    assert file == tmp_path / "data" / name
    rows = pairs(split_of(str(file)))
    assert rows == ([{"prompt": "x", "completion": "y"}] if name.endswith("csv") else ROWS)
    assert [entry.name for entry in (tmp_path / "data").iterdir()] == [name]


def test_standard_input_that_is_empty_or_a_terminal_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    with pytest.raises(DataError, match="standard input is empty"):
        standard_input.store(tmp_path)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    with pytest.raises(DataError, match="standard input is a terminal"):
        standard_input.store(tmp_path)


def test_files_with_unread_columns_are_told_by_file(tmp_path):
    write(tmp_path / "a.jsonl", 3, "a")
    (tmp_path / "b.jsonl").write_text('{"prompt": "q", "completion": "a", "source": "x"}\n')
    account = Account()
    spec = DataSpec(train=[f"{tmp_path}/a.jsonl", f"{tmp_path}/b.jsonl"], eval_fraction=0.0)
    load_samples(spec, 0, account=account)
    assert str(account.unread["column 'source'"]) == "1 (b.jsonl:1)"
