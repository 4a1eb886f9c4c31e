"""Papers out and in, read back by programs that this project did not write."""

from __future__ import annotations

import csv
import io
import itertools
import json
import lzma
import re
from datetime import UTC, date, datetime

import bibtexparser
import jsonschema
import pytest
import rispy
from citeproc import Citation, CitationItem, CitationStylesBibliography, CitationStylesStyle
from citeproc import formatter as formatters
from citeproc.source.json import CiteProcJSON
from hypothesis import given
from hypothesis import strategies as st
from pybtex.database import parse_string

from etude.core.errors import PapersError
from etude.papers.exchange import FORMATS, read, read_file, write
from etude.papers.exchange.entry import identifier_in, identifier_of
from etude.papers.exchange.keys import citation_key
from etude.papers.exchange.latex import compilable, plain
from etude.papers.exchange.names import split_name
from etude.papers.exchange.whole import restore, with_listings
from etude.papers.library import Library
from etude.papers.reader import Reader
from etude.papers.record import Announcement, Sighting
from etude.store.engine import open_store

HOSTILE = [
    "0",
    '=HYPERLINK("http://evil","x")',
    "+1+1|cmd",
    "@SUM(A1)",
    "-2+3",
    "\t=1",
    "<script>alert(1)</script> & <b>bold</b>",
    r"\input{/etc/passwd} \write18{rm -rf}",
    r"$\input{x}$ and ^^5cinput{x}",
    "unbalanced { brace",
    "unbalanced } brace",
    "quotes \" and ' and ``these''",
    "50% & #1 _x_ ~ ^ \\",
    "\u202eright to left\u202c\x07\x1b[31m",
    "@article{evil, title={x}}",
    "$$$$$",
    "ER  - \nTY  - JOUR",
    "emoji 🦙 and 中文 and Ελληνικά",
    "$\\mathcal{O}(n^2)$ and \\emph{more}",
]


def paper(**changes):
    row = {
        "id": "1706.03762",
        "version": 7,
        "title": "Attention Is All You Need",
        "abstract": "The dominant sequence transduction models are based on networks.",
        "authors": ["Ashish Vaswani", "Łukasz Kaiser", "Laurens van der Maaten"],
        "categories": ["cs.CL", "cs.LG"],
        "published": datetime(2017, 6, 12, 17, 57, tzinfo=UTC).timestamp(),
        "updated": datetime(2023, 8, 2, tzinfo=UTC).timestamp(),
        "comment": "15 pages, 5 figures",
        "journal_ref": None,
        "doi": None,
        "licence": None,
        "datestamp": None,
        "announced": "2017-06-13",
        "replaced": None,
        "withdrawn": None,
        "basis": {"": [7, "", datetime(2023, 8, 2, tzinfo=UTC).timestamp()]},
        "first_seen": 1.8e9,
        "revision": 3,
        "summary": None,
        "summary_by": None,
    }
    return {**row, **changes}


def hostile():
    return [
        paper(id=f"2403.{number:05}", title=text, abstract=text + " in an abstract", comment=text)
        for number, text in enumerate(HOSTILE, 1)
    ]


@pytest.fixture
def library(tmp_path):
    return Library(open_store(f"sqlite:///{tmp_path / 'a.sqlite3'}"), clock=lambda: 1.8e9)


@pytest.fixture(scope="module")
def corpus(shared_data):
    """Some of the first 8,000 real papers: strange letters first, and the one with most authors."""
    with lzma.open(shared_data / "papers" / "corpus.jsonl.xz", "rt") as file:
        rows = [json.loads(line) for line in itertools.islice(file, 8000)]
    rows.sort(
        key=lambda row: (
            -sum(not letter.isascii() or letter in "\\{}$&%#_~^" for letter in row["title"])
        )
    )
    chosen = [*rows[:300], *rows[1000:1300], max(rows, key=lambda row: len(row["authors"]))]
    return [
        paper(
            **{key: row[key] for key in ("id", "title", "abstract", "authors", "categories")},
            comment=row["comment"],
            published=None,
            version=None,
        )
        for row in chosen
    ]


# Names and keys


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ada Lovelace", ("Lovelace", "Ada", "", "", "")),
        ("Lovelace, Ada", ("Lovelace", "Ada", "", "", "")),
        ("Laurens van der Maaten", ("Maaten", "Laurens", "van der", "", "")),
        ("Luc Van Gool", ("Van Gool", "Luc", "", "", "")),
        ("Robert W. Heath Jr.", ("Heath", "Robert W.", "", "Jr.", "")),
        ("Hal Daumé III", ("Daumé", "Hal", "", "III", "")),
        ("King, Jr., Martin Luther", ("King", "Martin Luther", "", "Jr.", "")),
        ("Euclid Collaboration", ("", "", "", "", "Euclid Collaboration")),
        ("GLM-4. 5 Team", ("", "", "", "", "GLM-4. 5 Team")),
        ("Anshumann", ("", "", "", "", "Anshumann")),
        ("de Silva", ("Silva", "de", "", "", "")),
        ("", ("", "", "", "", "")),
        (":", ("", "", "", "", ":")),
    ],
)
def test_names_come_apart(text, expected):
    name = split_name(text)
    assert (name.family, name.given, name.particle, name.suffix, name.literal) == expected


def test_a_citation_key_does_not_depend_on_other_papers_or_on_the_title():
    assert citation_key(paper()) == "vaswani-1706.03762"
    assert citation_key(paper(title="Another", version=9)) == "vaswani-1706.03762"
    assert citation_key(paper(id="hep-th/9901001", authors=["Łukasz Ø'Brien"])) == (
        "obrien-hep-th-9901001"
    )
    assert citation_key(paper(authors=["王小明"])) == "arxiv-1706.03762"
    assert citation_key(paper(authors=[])) == "arxiv-1706.03762"


def test_keys_of_real_papers_are_unique_ascii(corpus):
    keys = [citation_key(row) for row in corpus]
    assert len(set(keys)) == len({row["id"] for row in corpus})
    assert all(re.fullmatch(r"[a-z]+[a-z0-9]*-[a-z0-9.-]+", key) for key in keys)


# BibTeX


def test_bibtex_is_read_by_pybtex_as_it_was_meant():
    rows = [
        paper(),
        paper(id="2403.00002", journal_ref="Nature 12, 3 (2021)", doi="10.1000/a_b{c}"),
        paper(id="hep-th/9901001", published=None, journal_ref="Proc. of CVPR 2024"),
    ]
    entries = parse_string(write(rows, "bibtex"), "bibtex").entries
    first = entries["vaswani-1706.03762"]
    assert first.type == "misc"
    assert first.fields["eprint"] == "1706.03762"
    assert (first.fields["archivePrefix"], first.fields["primaryClass"]) == ("arXiv", "cs.CL")
    assert (first.fields["year"], first.fields["month"]) == ("2017", "June")
    person = first.persons["author"][2]
    assert (person.first_names, person.prelast_names, person.last_names) == (
        ["Laurens"],
        ["van", "der"],
        ["Maaten"],
    )
    second = entries["vaswani-2403.00002"]
    assert (second.type, second.fields["journal"], second.fields["year"]) == (
        "article",
        "Nature 12, 3 (2021)",
        "2021",
    )
    assert second.fields["doi"] == "10.1000/a_b%7Bc%7D"
    assert entries["vaswani-hep-th-9901001"].type == "inproceedings"


def test_real_papers_come_back_from_bibtex_by_other_readers_and_ours(corpus):
    text = write(corpus, "bibtex")
    entries = parse_string(text, "bibtex").entries
    parsed = bibtexparser.parse_string(text)
    assert not parsed.failed_blocks
    assert len(parsed.entries) == len(entries) == len(corpus)
    back = read(text, "bibtex")
    for row, entry, block in zip(corpus, back.entries, parsed.entries, strict=True):
        assert entry.identifier.id == row["id"] == block.fields_dict["eprint"].value
        # Formulas between \( and \) come back between dollars.
        wanted = re.sub(r"\\\((.*?)\\\)", r"$\1$", plain(row["title"]))
        assert entry.title == wanted
        assert list(entry.authors) == [plain(author) for author in row["authors"]]
        assert len(entries[entry.key].persons["author"]) == len(row["authors"])
        assert entry.categories[0] == row["categories"][0]


def test_3303_authors_stay_3303_and_lines_stay_short():
    authors = [f"Given{number} van der Family{number}" for number in range(3303)]
    text = write([paper(authors=authors)], "bibtex")
    assert max(map(len, text.splitlines())) < 200
    (entry,) = parse_string(text, "bibtex").entries.values()
    assert len(entry.persons["author"]) == 3303
    for format_ in FORMATS:
        (back,) = read(write([paper(authors=authors)], format_), format_).entries
        assert list(back.authors) == authors


def test_hostile_texts_can_neither_leave_their_field_nor_run_when_compiled():
    rows = hostile()
    text = write(rows, "bibtex")
    assert len(bibtexparser.parse_string(text).entries) == len(rows)
    entries = parse_string(text, "bibtex").entries
    assert len(entries) == len(rows)
    assert not re.search(r"\\(input|write|emph)\b", text)
    assert "^^" not in text
    for entry in entries.values():
        for value in (entry.fields["title"], entry.fields["abstract"]):
            assert not re.search(r"(?<!\\)[%#&]", value)
    assert [entry.identifier.id for entry in read(text, "bibtex").entries] == [
        row["id"] for row in rows
    ]


@given(st.text(max_size=80))
def test_any_title_leaves_braces_balanced_and_no_command_but_those_that_print(title):
    made = compilable(title)
    depth = 0
    for match in re.finditer(r"[{}]", made):
        depth += 1 if match[0] == "{" else -1
        assert depth >= 0
    assert depth == 0
    (entry,) = parse_string(write([paper(title=title)], "bibtex"), "bibtex").entries.values()
    assert entry.persons["author"][0].last_names == ["Vaswani"]


def test_accents_go_through_latex_and_come_back():
    text = "Štěpán Ångström Łódź façade Gödel ñ ő ţ Ø ß Æ ı í"
    assert compilable(text).isascii()
    assert plain(compilable(text)) == text
    assert plain(r"Erd\H{o}s, \v Cech, Fran\c{c}ois, \'{\i}, G\"odel, \o re, 5\% of Fig.~3") == (
        "Erdős, Čech, François, í, Gödel, øre, 5% of Fig. 3"
    )


def test_capitals_that_mean_something_are_kept_from_styles():
    made = write([paper(title="YOLOv8 meets 3D boxes with $k$-NN")], "bibtex")
    assert "{{YOLOv8} meets {3D} boxes with $k$-{NN}}" in made


ZOTERO = """
@misc{vaswani_attention_2017,
	title = {Attention {Is} {All} {You} {Need}},
	url = {http://arxiv.org/abs/1706.03762},
	doi = {10.48550/arXiv.1706.03762},
	urldate = {2024-05-01},
	publisher = {arXiv},
	author = {Vaswani, Ashish and Kaiser, {\\L}ukasz and {The DUNE Collaboration}},
	month = aug,
	year = {2023},
	note = {arXiv:1706.03762 [cs]},
	keywords = {Computer Science - Computation and Language},
}
"""
MENDELEY = """@article{He2016,
abstract = {Deeper neural networks are more difficult to train.},
archivePrefix = {arXiv},
arxivId = {1512.03385v1},
author = {He, Kaiming and Zhang, Xiangyu},
eprint = {1512.03385v1},
file = {:home/me/He.pdf:pdf},
mendeley-tags = {a,b},
title = {{Deep Residual Learning for Image Recognition}},
url = {http://arxiv.org/abs/1512.03385},
year = {2015}
}"""
JABREF = """% Encoding: UTF-8

@String{cvpr = "Proceedings of " # "CVPR"}

@InProceedings{redmon2016,
  author    = "Joseph Redmon and Ali Farhadi and others",
  title     = "You Only Look Once: {Unified}, Real-Time Object Detection",
  booktitle = cvpr # { 2016},
  year      = 2016,
  eprint    = {1506.02640},
  eprinttype = {arXiv},
  eprintclass = {cs.CV},
  groups    = {a\\;b},
}

@Comment{jabref-meta: databaseType:bibtex;}

@Comment this is a line with an @ sign
"""
SCHOLAR = """@article{dosovitskiy2020image,
  title={An image is worth 16x16 words: Transformers for image recognition at scale},
  author={Dosovitskiy, Alexey and Beyer, Lucas and others},
  journal={arXiv preprint arXiv:2010.11929},
  year={2020}
}
"""
DBLP = """@article{DBLP:journals/corr/abs-1810-04805,
  author       = {Jacob Devlin and
                  Ming{-}Wei Chang},
  title        = {{BERT:} Pre-training of Deep Bidirectional Transformers},
  journal      = {CoRR},
  volume       = {abs/1810.04805},
  year         = {2018},
}
@misc(witten, title = {Anti De Sitter Space}, eprint = {9802150}, archivePrefix = {arXiv},
  primaryClass = {hep-th})
@book{knuth, title = {The {\\TeX}book}, author = {Donald E. Knuth}, year = 1984}
@misc{hal, title = {Elsewhere}, eprint = {1234.56789}, eprinttype = {hal}}
"""


def test_what_zotero_mendeley_jabref_scholar_and_dblp_write_is_read():
    (zotero,) = read(ZOTERO, "bibtex").entries
    assert zotero.identifier.id == "1706.03762"
    assert zotero.title == "Attention Is All You Need"
    assert zotero.authors == ("Ashish Vaswani", "Łukasz Kaiser", "The DUNE Collaboration")
    assert (zotero.doi, zotero.place) == (None, "the file, line 2")
    (mendeley,) = read(MENDELEY, "bibtex").entries
    assert (mendeley.identifier.id, mendeley.identifier.version) == ("1512.03385", 1)
    (jabref,) = read(JABREF, "bibtex").entries
    assert jabref.journal_ref == "Proceedings of CVPR 2016"
    assert jabref.authors == ("Joseph Redmon", "Ali Farhadi")
    assert jabref.categories == ("cs.CV",)
    (scholar,) = read(SCHOLAR, "bibtex").entries
    assert (scholar.identifier.id, scholar.journal_ref) == ("2010.11929", None)
    bert, witten, knuth, hal = read(DBLP, "bibtex").entries
    assert bert.identifier.id == "1810.04805"
    assert bert.authors == ("Jacob Devlin", "Ming-Wei Chang")
    assert witten.identifier.id == "hep-th/9802150"
    assert knuth.identifier is hal.identifier is None
    assert [entry.key for entry in read(DBLP, "bibtex").unknown] == ["knuth", "hal"]


def test_bytes_with_a_mark_windows_lines_or_utf_16_are_read():
    windows = ZOTERO.replace("\n", "\r\n")
    for data in (b"\xef\xbb\xbf" + windows.encode(), windows.encode("utf-16"), windows.encode()):
        assert read(data, "bibtex").ids == ["1706.03762"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("@misc{a,\n title = {x\n", "refs.bib, line 1: this entry is not closed"),
        ("\n@misc{a,\n title = }", "refs.bib, line 3: a field has no value"),
        ("@misc{a,\n title {x}}", "refs.bib, line 2: expected `field = value`"),
        ("@misc{a,\n title = {x}\n year = 3}", "refs.bib, line 3: no comma after"),
        ('@misc{a, title = "x}', "refs.bib, line 1: this entry is not closed"),
        ("@misc{a b c, title = {x}}", "refs.bib, line 1: expected a key and a comma"),
        (b"@misc{a,\n title = {caf\xe9}}", "refs.bib, line 2: byte 22 is not UTF-8"),
        ("@misc{a," + "{" * 100_000, "refs.bib, line 1"),
    ],
)
def test_bad_bibtex_is_one_line_that_says_where(text, expected):
    with pytest.raises(PapersError) as caught:
        read(text, "bibtex", name="refs.bib")
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)


@given(st.text(alphabet='@{}()",=#\\ \nabmisctle%', max_size=120))
def test_any_bibtex_is_read_or_refused(text):
    try:
        read(text, "bibtex")
    except PapersError as error:
        assert "line" in str(error)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://arxiv.org/pdf/2403.01234v2.pdf", "2403.01234v2"),
        ("https://doi.org/10.48550/ARXIV.2403.01234", "2403.01234"),
        ("arXiv:hep-th/9901001 [hep-th]", "hep-th/9901001"),
        ("arXiv preprint arXiv: 2403.01234", "2403.01234"),
        ("abs/1706.03762", "1706.03762"),
        ("10.1000/2403.01234", None),
        ("arXiv:2403.012345", None),
        ("pages 2403.01234", None),
    ],
)
def test_ids_are_found_only_where_a_text_names_arxiv(text, expected):
    found = identifier_in([text])
    assert (str(found) if found else None) == expected


def test_an_eprint_of_another_archive_is_no_arxiv_id():
    assert identifier_of("2403.01234", "hal") is None
    assert str(identifier_of("2403.01234", "arXiv")) == "2403.01234"


# CSL-JSON, RIS, CSV


# What https://resource.citationstyles.org/schema/latest/input/json/csl-data.json says of the
# fields that are written here; it allows none that it does not know.
_NAME = {key: {"type": "string"} for key in ("family", "given", "suffix", "literal")}
CSL = {
    "type": "object",
    "required": ["type", "id"],
    "properties": {
        "type": {"enum": ["article", "article-journal", "paper-conference"]},
        "author": {
            "type": "array",
            "items": {
                "properties": {**_NAME, "non-dropping-particle": {"type": "string"}},
                "additionalProperties": False,
            },
        },
        "issued": {
            "properties": {
                "date-parts": {
                    "minItems": 1,
                    "maxItems": 2,
                    "items": {"type": "array", "minItems": 1, "maxItems": 3},
                }
            },
            "additionalProperties": False,
        },
        **{
            key: {"type": "string"}
            for key in (
                "id", "title", "abstract", "DOI", "URL", "number", "publisher", "keyword",
                "container-title", "archive", "archive_location", "version", "note",
            )
        },
    },
    "additionalProperties": False,
}  # fmt: skip


def test_csl_has_no_field_that_its_schema_does_not_know(corpus):
    rows = [*corpus, *hostile(), paper(journal_ref="Nature 1 (2021)", doi="10.1/x")]
    schema = jsonschema.Draft7Validator(CSL)
    for item in json.loads(write(rows, "csl-json")):
        schema.validate(item)


def _cited(item):
    source = CiteProcJSON([item])
    style = CitationStylesStyle("harvard-cite-them-right", validate=False)
    bibliography = CitationStylesBibliography(style, source, formatters.plain)
    bibliography.register(Citation([CitationItem(item["id"])]))
    return str(bibliography.bibliography()[0])


def test_csl_is_printed_by_citeproc_with_its_names_in_parts():
    (item,) = json.loads(
        write([paper(authors=["Laurens van der Maaten", "DUNE Team"])], "csl-json")
    )
    assert item["author"] == [
        {"family": "Maaten", "given": "Laurens", "non-dropping-particle": "van der"},
        {"literal": "DUNE Team"},
    ]
    assert item["issued"] == {"date-parts": [[2017, 6, 12]]}
    assert (item["type"], item["DOI"]) == ("article", "10.48550/arXiv.1706.03762")
    printed = _cited(item)
    assert "van der Maaten, L." in printed
    assert "DUNE Team" in printed
    assert "2017" in printed
    assert "Attention Is All You Need" in printed


def test_csl_as_zotero_exports_it_is_read():
    item = {
        "id": "http://zotero.org/users/1/items/ABC",
        "type": "article",
        "title": "Attention Is All You Need",
        "number": "arXiv:1706.03762",
        "publisher": "arXiv",
        "author": [{"family": "Vaswani", "given": "Ashish"}],
        "issued": {"date-parts": [["2017", 6]]},
    }
    (entry,) = read(json.dumps([item]), "csl-json").entries
    assert (entry.identifier.id, entry.authors) == ("1706.03762", ("Ashish Vaswani",))


def test_ris_is_read_by_rispy(corpus):
    text = write(corpus, "ris")
    assert text.count("\r\n") == text.count("\n")
    found = rispy.loads(text)
    assert len(found) == len(corpus)
    for row, record in zip(corpus, found, strict=True):
        assert record["title"] == plain(row["title"])
        assert record["doi"] == f"10.48550/arXiv.{row['id']}"
        assert len(record["authors"]) == len(row["authors"])
    back = read(text, "ris")
    assert back.ids == [row["id"] for row in corpus]
    assert [entry.title for entry in back.entries] == [plain(row["title"]) for row in corpus]


def test_ris_of_others_is_read_with_its_continued_lines():
    text = "\ufeffTY  - JOUR\r\nT1  - Attention is\r\n all you need\r\nA1  - Vaswani, Ashish\r\n"
    text += "JO  - arXiv preprint arXiv:1706.03762\r\nER  -\r\n\r\n"
    (entry,) = read(text, "ris").entries
    assert (entry.title, entry.identifier.id) == ("Attention is all you need", "1706.03762")
    assert (entry.authors, entry.journal_ref) == (("Ashish Vaswani",), None)


@pytest.mark.parametrize(
    ("format_", "text", "expected"),
    [
        ("ris", "TY  - JOUR\nTI  - x\n", "f, line 1: this record has no ER"),
        ("ris", "TI  - x\n", "f, line 1: TI comes before any TY"),
        ("ris", "hello\n", "f, line 1: 'hello' is outside a record"),
        ("ris", "TY  - A\nTY  - B\n", "f, line 2: the record of line 1 has no ER"),
        ("csv", "a,b\n1,2\n", "f, line 1: no column is named"),
        ("csv", 'id,title\n2403.00001,"x\n', "f, line 2: not valid CSV"),
        ("csv", "id,title\n2403.00001,x,y\n", "f, line 2: 3 cells in 2 columns"),
        ("csl-json", "[{]", "f, line 1, column 3: not valid JSON"),
        ("csl-json", "3", "f: expected a list of items"),
        ("csl-json", "[3]", "f, item 1 must be an object"),
        ("csl-json", '[{"title": []}]', "f, item 1: 'title' should be a string"),
        ("csl-json", "[" * 100_000, "f: brackets are nested too deeply"),
        ("json", "{}", "f: not by Etude"),
        ("json", '{"format": "etude-papers", "version": 2}', "f: version 2 is of a newer Etude"),
        (
            "json",
            '{"format": "etude-papers", "version": 1, "papers": [{"id": "x"}]}',
            "f, paper 1: 'x' is not an arXiv id",
        ),
        (
            "json",
            '{"format": "etude-papers", "version": 1, "papers": [{"id": "2403.00001"'
            ', "title": 3}]}',
            "f, paper 1 (2403.00001): 'title' has the invalid value 3",
        ),
        ("bibtext", "", "unknown format 'bibtext' (did you mean 'bibtex'?)"),
    ],
)
def test_bad_files_are_one_line_that_says_where(format_, text, expected):
    with pytest.raises(PapersError) as caught:
        read(text, format_, name="f")
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)


def test_no_cell_of_a_table_is_a_formula_and_reading_gives_the_texts_back():
    rows = hostile()
    text = write(rows, "csv")
    cells = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["id"] for row in cells] == [row["id"] for row in rows]
    for row in cells:
        for cell in row.values():
            assert not cell.lstrip().startswith(("=", "+", "-", "@", "\t", "＝"))
    back = read(text, "csv").entries
    assert [entry.title for entry in back] == [plain(row["title"]) for row in rows]


@given(st.text(max_size=20), st.sampled_from(["", "'", "''", "=", "'=", "＝", " -"]))
def test_apostrophes_put_before_formulas_are_taken_away_again(text, start):
    from etude.papers.exchange.table import _bare, _safe

    cell = start + text
    assert _bare(_safe(cell)) == cell
    assert not _safe(cell).lstrip().startswith(("=", "+", "-", "@"))


def test_a_table_as_zotero_exports_it_is_read():
    text = (
        '\ufeff"Key","Item Type","Author","Title","Url","Extra"\r\n'
        '"ABC","preprint","Vaswani, Ashish; Kaiser, Łukasz","Attention","","arXiv:1706.03762 [cs]"'
        "\r\n"
    )
    (entry,) = read(text, "csv").entries
    assert (entry.identifier.id, entry.authors) == (
        "1706.03762",
        ("Ashish Vaswani", "Łukasz Kaiser"),
    )


# Everything


def test_json_gives_a_library_back_as_it_was(library, tmp_path):
    first = Sighting(
        "2403.00001",
        "A title",
        "An abstract.",
        ("Ada Lovelace",),
        ("cs.CV",),
        version=1,
        published=datetime(2024, 3, 1, 12, tzinfo=UTC),
        updated=datetime(2024, 3, 1, 12, tzinfo=UTC),
        doi="10.1/x",
    )
    library.put(
        [
            first,
            Sighting(
                "2403.00001",
                "A better title",
                "Another.",
                ("Ada Lovelace", "A. Turing"),
                ("cs.CV", "cs.LG"),
                version=3,
                updated=datetime(2024, 5, 1, tzinfo=UTC),
                comment="withdrawn",
                withdrawn=True,
            ),
            Sighting(
                "2403.00001",
                "A title",
                "An abstract.",
                ("Ada Lovelace",),
                ("cs.CV",),
                datestamp=date(2024, 4, 2),
                licence="http://creativecommons.org/licenses/by/4.0/",
                announced=date(2024, 3, 4),
                announcement=Announcement.NEW,
            ),
            Sighting(
                "hep-th/9901001", "0", "Old.", (), ("hep-th",),
                announced=date(2024, 5, 2), announcement=Announcement.REPLACE,
            ),
            Sighting("2403.00009", "Never listed", "x", ("B",), ("cs.CL",)),
        ]
    )  # fmt: skip
    library.set_summaries([("2403.00001", "Short.", "extract:1")])
    reader = Reader(library.engine, "ada")
    reader.like("2403.00001")
    reader.tag("2403.00001", "café")
    ids = ["2403.00001", "hep-th/9901001", "2403.00009"]
    text = write(with_listings(library, library.get_many(ids)), "json", reader=reader.export())
    file = tmp_path / "all.json"
    file.write_text(text, "utf-8")

    other = Library(open_store(f"sqlite:///{tmp_path / 'b.sqlite3'}"), clock=lambda: 1.9e9)
    contents = read_file(file)
    assert restore(other, contents.entries) == 3
    again = Reader(other.engine, "ada")
    again.restore(contents.reader)
    for key in ids:
        was, now = library.get(key), other.get(key)
        was.pop("revision")
        now.pop("revision")
        assert now == was
    assert again.opinions() == {"2403.00001": 1}
    assert again.tags() == {"café": ["2403.00001"]}
    # A second time changes nothing.
    before = [other.get(key) for key in ids]
    restore(other, contents.entries)
    assert [other.get(key) for key in ids] == before


def test_a_file_of_others_never_outranks_a_source(library):
    library.put([Sighting("1706.03762", "Right", "Right.", ("A",), ("cs.CL",), version=7)])
    contents = read(MENDELEY.replace("1512.03385", "1706.03762"), "bibtex")
    library.put(contents.sightings())
    assert library.get("1706.03762")["title"] == "Right"


def test_only_json_has_a_place_for_opinions():
    with pytest.raises(PapersError, match="use --format json"):
        write([paper()], "ris", reader={})


def test_a_file_that_is_not_there_or_not_known_is_one_line(tmp_path):
    with pytest.raises(PapersError, match=r"cannot be read: No such file"):
        read_file(tmp_path / "no.bib")
    (tmp_path / "a.xyz").write_text("x")
    with pytest.raises(PapersError, match=r"unknown format; give --format"):
        read_file(tmp_path / "a.xyz")
