"""Documents: every file of a folder is read or named, every token is a target once."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.core.errors import DataError
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.document_rows import DocumentEncoder, by_document, mixed, row_spans
from etude.tuning.data.document_split import read_split
from etude.tuning.data.documents import read_documents, split_single
from etude.tuning.data.schema import Sample
from etude.tuning.data.sources.html_text import html_to_text

PLAIN = DataSpec()


def texts(documents):
    return {sample.origin: sample.text for sample in documents.samples}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "notes" / "deep").mkdir(parents=True)
    (tmp_path / "notes" / ".git").mkdir()
    (tmp_path / "notes" / "b.md").write_text("# Title\n\nText *here*.\n")
    (tmp_path / "notes" / "deep" / "a.txt").write_bytes("\ufeffGrüße\n".encode())
    (tmp_path / "notes" / "page.HTML").write_text(
        "<html><head><title>Cats &amp; dogs</title><style>p{}</style></head><body>"
        "<script>x()</script><p>One  <b>bold</b>\nword<br>next</p><pre>a\n  b</pre></body></html>"
    )
    (tmp_path / "notes" / "empty.rst").write_text("\n \n")
    (tmp_path / "notes" / "scan.pdf").write_bytes(b"%PDF")
    (tmp_path / "notes" / "photo.png").write_bytes(b"\x89PNG")
    (tmp_path / "notes" / ".git" / "x.txt").write_text("hidden")
    (tmp_path / "notes" / "loop").symlink_to(tmp_path / "notes", target_is_directory=True)
    return tmp_path / "notes"


def test_a_folder_is_read_whole_and_what_is_not_read_is_named(folder):
    documents = read_documents(str(folder), PLAIN)
    assert texts(documents) == {
        "b.md": "# Title\n\nText *here*.\n",
        "deep/a.txt": "Grüße\n",
        "page.HTML": "Cats & dogs\n\nOne bold word\nnext\n\na\n  b",
    }
    notes = "\n".join(documents.notes)
    assert "read 4 text files" in notes and "3 documents" in notes
    assert "empty documents: 1 (empty.rst)" in notes
    assert ".pdf 1" in notes and "scan.pdf" in notes and "photo.png" in notes and "loop/" in notes
    assert "hidden: 1" in notes and ".git/" in notes


def test_a_file_that_is_not_utf_8_is_refused_by_its_line(folder):
    (folder / "old.txt").write_bytes(b"good\nna\xefve\n")
    with pytest.raises(DataError, match=r"old\.txt is not UTF-8: byte 0xef in line 2"):
        read_documents(str(folder), PLAIN)


def test_a_folder_without_texts_says_what_is_there(tmp_path):
    (tmp_path / "a.docx").write_text("x")
    with pytest.raises(DataError, match=r"holds no text files .*not read: 1 \(\.docx 1\): a\.docx"):
        read_documents(str(tmp_path), PLAIN)


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("<title>T</title><p>a<p>b", "T\n\na\n\nb"),
        ("<head><title>T</title><p>text", "T\n\ntext"),
        ("plain &lt;b&gt; &eacute;", "plain <b> é"),
        ("<table><tr><td>1<td>2</table>after<!-- no -->", "1\n\n2\n\nafter"),
        ("<p>a</p><script>if (a < b) { '<p>' }</script><p>b</p>", "a\n\nb"),
        ("", ""),
    ],
)
def test_pages_are_read_as_a_reader_sees_them(page, expected):
    assert html_to_text(page) == expected


def test_documents_of_one_file_begin_where_the_recipe_says(tmp_path):
    file = tmp_path / "wiki.txt"
    file.write_text(" = One = \n\nText.\n = = Part = = \nMore.\n = Two = \n\nEnd.\n")
    assert len(read_documents(str(file), PLAIN).samples) == 1
    found = texts(read_documents(str(file), DataSpec(document_start="^ = [^=]+ = $")))
    assert list(found) == ["wiki.txt:1", "wiki.txt:6"]
    assert "".join(found.values()) == file.read_text()
    assert found["wiki.txt:6"].startswith(" = Two =")


def test_the_articles_of_wikitext_are_documents_and_none_of_it_is_lost(shared_data):
    file = shared_data / "lm" / "wikitext2" / "valid.txt"
    documents = read_documents(str(file), DataSpec(document_start="^ = [^=]+ = $"))
    assert len(documents.samples) == 60  # as the data set is described
    assert "".join(sample.text for sample in documents.samples) == file.read_text("utf-8")


def test_rows_are_read_by_a_column_or_a_template(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"title": "A", "body": ["One.", "Two."]}\n')
    documents = read_documents(str(file), DataSpec(text="{title}: {body}"))
    assert texts(documents) == {"rows.jsonl:1": "A: One. Two."}
    with pytest.raises(DataError, match=r"rows\.jsonl:1: no column 'text' \(data\.text\)"):
        read_documents(str(file), PLAIN)


def test_the_end_of_a_single_document_is_held_out_at_a_paragraph():
    text = "\n\n".join(f"Paragraph {n} has some words." for n in range(40))
    train, held_out = split_single(Sample.plain(text, "book.txt"), 0.1)
    assert held_out.text.startswith("Paragraph ")
    assert f"{train.text}\n\n{held_out.text}" == text
    assert 0 < len(held_out.text) <= 0.1 * len(text)
    assert held_out.origin == f"book.txt:{train.text.count(chr(10)) + 3}"
    assert split_single(Sample.plain("oneword", "x"), 0.5) is None


def test_text_outside_the_domain_is_not_trained_on(folder):
    general = folder.parent / "general.jsonl"
    general.write_text(json.dumps({"text": "# Title\n\nText *here*."}) + "\n")
    spec = DataSpec(train=str(folder), eval_fraction=0.3)
    split = read_split(spec, str(general), 0)
    assert len(split.general) == 1 and len(split.train) + len(split.eval) == 2
    assert any("also in eval.general: 1 (b.md)" in note for note in split.notes)
    with pytest.raises(DataError, match=r"every training document is also in eval\.general"):
        read_split(spec.model_copy(update={"train": str(general)}), str(general), 0)


# Rows


@given(st.integers(2, 200), st.integers(2, 50), st.data())
def test_every_token_but_the_first_is_a_target_once(length, size, data):
    stride = data.draw(st.none() | st.integers(1, size - 1))
    spans = row_spans(length, size, stride)
    targets = [place for _, first, stop in spans for place in range(first, stop)]
    assert targets == list(range(1, length))
    for start, first, stop in spans:
        assert 0 <= start < first < stop <= start + size
    if stride is None:
        # Full rows but for the last.
        assert all(stop - start == size for start, _, stop in spans[:-1])
    else:
        assert all(first - start >= min(first, size - stride) for start, first, _ in spans)


def test_rows_hold_every_token_of_a_document_in_order(tiny_tokenizer):
    encoder = DocumentEncoder(tiny_tokenizer, DataSpec(max_length=8))
    documents = [
        Sample.plain("def add(left, right):\n    return left + right\n" * 3, "a.txt"),
        Sample.plain("x", "b.txt"),
    ]
    encoded = encoder.encode_documents(documents, keep_sources=True)
    end = tiny_tokenizer.eos_token_id
    for (sample, rows), expected in zip(by_document(encoded), documents, strict=True):
        assert sample is expected
        ids = tiny_tokenizer(sample.text, add_special_tokens=False)["input_ids"]
        assert rows[0].input_ids[0] == end  # the separator
        targets = np.concatenate([row.input_ids[row.trained] for row in rows])
        assert targets.tolist() == [*ids, end]
    assert encoded.stats.trained_tokens == sum(row.trained_tokens for row in encoded.samples)
    assert encoded.samples[1].origin == "a.txt, tokens 8 to 14"


def test_general_rows_are_mixed_in_by_their_share_of_tokens(tiny_tokenizer):
    encoder = DocumentEncoder(tiny_tokenizer, DataSpec(max_length=16))
    domain = encoder.encode_documents([Sample.plain("return self.value\n" * 60, "d")])
    general = encoder.encode_documents([Sample.plain("import json, inspect\n" * 90, "g")])
    both = mixed(domain, general, 0.25, seed=0)
    drawn = both.samples[len(domain.samples) :]
    share = sum(row.trained_tokens for row in drawn) / both.stats.trained_tokens
    # The last row drawn may exceed the share by at most its 15 tokens.
    assert 0.25 <= share <= 0.25 + 15 / both.stats.trained_tokens
    assert len({row.origin for row in drawn}) == len(drawn)
    again = mixed(domain, general, 0.25, seed=0)
    assert [row.origin for row in again.samples] == [row.origin for row in both.samples]
    assert len(mixed(domain, general, 0.99, seed=0).samples) == len(domain.samples) + len(
        general.samples
    )
