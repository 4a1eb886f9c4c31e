"""CoNLL-style files, by ending and by content, and class names that data sets keep."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.sources.class_names import names_in_features
from etude.tuning.data.sources.files import read_rows
from etude.tuning.data.sources.hub import hub_rows
from etude.tuning.data.sources.registry import Row, UnreadableRow
from etude.tuning.data.tagging.reading import SpanRepairs, tagged_reader

CONLL_2003 = """-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O

# NN B-NP O
Peter NNP B-NP B-PER
"""


def rows(path, text):
    path.write_text(text, "utf-8")
    return list(read_rows(path))


@pytest.mark.parametrize("name", ["a.conll", "a.iob2", "a.txt", "a.annotated"])
def test_sentences_are_rows_whatever_the_name(tmp_path, name):
    first, second = rows(tmp_path / name, CONLL_2003)
    assert first.origin == f"{name}:3"
    assert first.values["words"] == ["EU", "rejects"]
    assert first.values["tags"] == ["B-ORG", "O"]
    assert first.values["column 2"] == ["NNP", "VBZ"]
    assert second.origin == f"{name}:6"
    assert second.values["words"] == ["#", "Peter"]


def test_tabs_part_columns_and_a_tsv_without_header_is_recognised(tmp_path):
    text = "New York\tB-LOC\n\t\n,\tO\n\tO\n"
    first, second = rows(tmp_path / "a.tsv", text)
    assert first.values == {"words": ["New York"], "tags": ["B-LOC"]}
    assert second.values == {"words": [",", ""], "tags": ["O", "O"]}
    header = rows(tmp_path / "b.tsv", "text\tlabel\na\tO\nb\tB-LOC\n")
    assert header[0].values == {"text": "a", "label": "O"}


def test_a_text_that_happens_to_end_in_o_stays_a_text(tmp_path):
    (row,) = rows(tmp_path / "a.txt", "blood group O\nblood group O\n")
    assert row.values == {"text": "blood group O\nblood group O"}
    (row,) = rows(tmp_path / "b.txt", "Peter B-PER\nspeaks O\n")
    assert row.values["text"] == "Peter B-PER\nspeaks O"


def test_comments_are_passed_over_and_ragged_lines_are_named(tmp_path):
    found = rows(tmp_path / "a.conll", "# sent_id = 1\nPeter B-PER\nx y O\n\nalone\n")
    kinds = [(type(row), row.origin) for row in found]
    assert kinds == [
        (UnreadableRow, "a.conll:3"),
        (Row, "a.conll:2"),
        (UnreadableRow, "a.conll:5"),
    ]
    assert "3 columns, expected as many as the first line (2)" in found[0].message


def test_names_of_tags_come_from_the_schema_of_a_parquet_file(tmp_path):
    features = {
        "tokens": {"feature": {"dtype": "string", "_type": "Value"}, "_type": "List"},
        "ner_tags": {
            "feature": {"names": ["O", "B-PER"], "_type": "ClassLabel"},
            "_type": "List",
        },
    }
    table = pa.table({"tokens": [["Peter", "said"]], "ner_tags": [[1, 0]]})
    written = json.dumps({"info": {"features": features}})
    table = table.replace_schema_metadata({"huggingface": written})
    pq.write_table(table, tmp_path / "a.parquet")
    (row,) = read_rows(tmp_path / "a.parquet")
    assert row.values["ner_tags"] == ["B-PER", "O"]
    pq.write_table(table.replace_schema_metadata({}), tmp_path / "b.parquet")
    (row,) = read_rows(tmp_path / "b.parquet")
    assert row.values["ner_tags"] == [1, 0]
    spec = DataSpec(train="-", tag_names=["O", "B-LOC"])
    assert tagged_reader(spec, row)(row).tags == ("B-LOC", "O")


def test_names_of_tags_come_from_the_features_of_a_data_set(tmp_path):
    datasets = pytest.importorskip("datasets")
    names = datasets.ClassLabel(names=["O", "B-PER"])
    features = datasets.Features(
        {"tokens": datasets.List(datasets.Value("string")), "ner_tags": datasets.List(names)}
    )
    assert names_in_features(features.to_dict()) == {"ner_tags": ["O", "B-PER"]}
    made = datasets.Dataset.from_dict(
        {"tokens": [["Peter", "said"]], "ner_tags": [[1, 0]]}, features=features
    )
    (tmp_path / "set").mkdir()
    made.to_parquet(tmp_path / "set" / "train.parquet")
    (row,) = hub_rows(str(tmp_path / "set"), None, "train")
    assert row.values["ner_tags"] == ["B-PER", "O"]


TEXT = "Angela Merkel met Macron in Paris."
SPAN_ROWS = {
    "doccano": {"text": TEXT, "label": [[0, 13, "PER"], [18, 24, "PER"], [28, 33, "LOC"]]},
    "spaCy": {"text": TEXT, "entities": [[18, 24, "PER"], [28, 33, "LOC"], [0, 13, "PER"]]},
    "Prodigy": {
        "text": TEXT,
        "spans": [
            {"start": 0, "end": 13, "label": "PER", "token_start": 0},
            {"start": 18, "end": 24, "label": "PER"},
            {"start": 28, "end": 33, "label": "LOC"},
        ],
    },
    "Label Studio": {
        "data": {"text": TEXT},
        "annotations": [
            {
                "result": [
                    {"type": "labels", "value": {"start": s, "end": e, "labels": [n]}}
                    for s, e, n in ((0, 13, "PER"), (18, 24, "PER"), (28, 33, "LOC"))
                ]
            }
        ],
    },
}


@pytest.mark.parametrize("tool", SPAN_ROWS)
def test_entities_of_annotation_tools_become_tags(tool):
    row = Row("a.jsonl:1", SPAN_ROWS[tool])
    sample = tagged_reader(DataSpec(train="-"), row)(row)
    assert " ".join(sample.words) == "Angela Merkel met Macron in Paris ."
    assert " ".join(sample.tags) == "B-PER I-PER O B-PER O B-LOC O"
    assert sample.text == TEXT


def test_entities_that_end_inside_words_or_in_spaces_are_counted():
    repairs = SpanRepairs()
    row = Row("a.jsonl:1", {"text": "COVID19 in Rome ", "spans": [[0, 5, "X"], [10, 16, "LOC"]]})
    sample = tagged_reader(DataSpec(train="-"), row, repairs)(row)
    assert sample.tags == ("B-X", "O", "B-LOC")
    assert repairs.notes() == [
        "entities that end inside a word, widened to it: 1 (a.jsonl:1)",
        "entities with white space at an end, trimmed: 1 (a.jsonl:1)",
    ]
    none = Row("a.jsonl:2", {"text": "nothing", "spans": None})
    assert tagged_reader(DataSpec(train="-"), row)(none).tags == ("O",)


def test_the_real_files_are_read_whole(shared_data):
    counts = {"bc5cdr/train.tsv": (4560, 118170), "wnut17/wnut17train.conll": (3394, 62730)}
    counts["wnut17/emerging.test.annotated"] = (1287, 23394)
    for name, (sentences, words) in counts.items():
        found = list(read_rows(shared_data / "ner" / name))
        assert all(isinstance(row, Row) for row in found)
        assert (len(found), sum(len(row.values["words"]) for row in found)) == (sentences, words)
