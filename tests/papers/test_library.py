"""One record a paper, whatever comes, in whatever order."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from datetime import UTC, date, datetime

import pytest

from etude.papers.identity import parse_identifier
from etude.papers.library import Library
from etude.papers.record import Announcement, Sighting
from etude.papers.words import parts
from etude.store.engine import open_store

FIRST = Sighting(
    "2403.00001",
    "A title",
    "An abstract.",
    ("Ada Lovelace",),
    ("cs.CV",),
    version=1,
    published=datetime(2024, 3, 1, 12, tzinfo=UTC),
)


@pytest.fixture
def library(tmp_path):
    return Library(
        open_store(f"sqlite:///{tmp_path / 'store.sqlite3'}"), clock=lambda: 1_800_000_000
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2403.01234v2", ("2403.01234", 2)),
        ("http://arxiv.org/abs/astro-ph/0601001v1", ("astro-ph/0601001", 1)),
        ("math.CA/0611800v2", ("math/0611800", 2)),
        ("oai:arXiv.org:2503.01234", ("2503.01234", None)),
        ("arXiv:0704.0001", ("0704.0001", None)),
        ("solv-int/9901001", ("solv-int/9901001", None)),
        ("https://arxiv.org/pdf/2403.01234v3.pdf", ("2403.01234", 3)),
    ],
)
def test_identifiers(text, expected):
    found = parse_identifier(text)
    assert (found.id, found.version) == expected


@pytest.mark.parametrize(
    "text", ["", "abc", "2403.123", "2403.01234v0", "../etc", "2403.01234v", "٢٤٠٣.01234"]
)
def test_what_is_no_identifier(text):
    with pytest.raises(ValueError, match="not an arXiv id"):
        parse_identifier(text)


def test_a_higher_version_replaces_the_text_and_a_lower_one_never_does(library):
    library.put([FIRST])
    second = replace(FIRST, version=2, abstract="A better abstract.", comment="Accepted")
    library.put([second])
    outcome = library.put([FIRST])
    row = library.get(FIRST.id)
    assert (row["version"], row["abstract"], row["comment"]) == (
        2,
        "A better abstract.",
        "Accepted",
    )
    assert (outcome.added, outcome.changed, outcome.same) == (0, 0, 1)


def test_the_first_listing_decides_when_a_paper_was_new(library):
    library.put(
        [
            replace(FIRST, announced=date(2024, 3, 5), announcement=Announcement.CROSS),
            replace(
                FIRST, version=2, announced=date(2024, 5, 1), announcement=Announcement.REPLACE
            ),
            replace(FIRST, announced=date(2024, 3, 4), announcement=Announcement.NEW),
        ]
    )
    row = library.get(FIRST.id)
    assert (row["announced"], row["replaced"]) == ("2024-03-04", "2024-05-01")
    assert row["listings"] == [
        ("2024-03-04", "new"),
        ("2024-03-05", "cross"),
        ("2024-05-01", "replace"),
    ]
    assert [found["id"] for found in library.day("2024-03-05")] == [FIRST.id]


def test_a_cross_list_adds_a_category_and_a_summary_falls_with_its_abstract(library):
    library.put([FIRST])
    library.set_summaries([(FIRST.id, "Short.", "by hand")])
    library.put([replace(FIRST, categories=("cs.CV", "cs.LG"))])
    row = library.get(FIRST.id)
    assert row["categories"] == ["cs.CV", "cs.LG"]
    assert row["summary"] == "Short."
    library.put([replace(FIRST, version=2, abstract="Another.")])
    assert library.get(FIRST.id)["summary"] is None


def test_any_order_any_repetition_and_any_batches_leave_the_same_record(library):
    sightings = [
        replace(FIRST, announced=date(2024, 3, 4), announcement=Announcement.NEW),
        replace(
            FIRST,
            version=None,
            datestamp=date(2024, 3, 5),
            categories=("cs.CV", "cs.LG"),
            doi="10.1/x",
        ),
        replace(FIRST, version=None, datestamp=date(2024, 4, 5), title="A Title", licence="cc"),
        replace(FIRST, version=2, abstract="Second.", updated=datetime(2024, 4, 4, tzinfo=UTC)),
        replace(FIRST, version=3, abstract="Withdrawn.", withdrawn=True, comment="withdrawn"),
    ]
    orders = list(itertools.permutations(sightings))
    chosen = random.Random(0)
    for number, order in enumerate(orders):
        again = [*order, *chosen.choices(sightings, k=4)]
        while again:
            size = chosen.randint(1, 4)
            library.put([replace(one, id=f"2403.{number:05}") for one in again[:size]])
            del again[:size]
    results = set()
    for number in range(len(orders)):
        row = library.get(f"2403.{number:05}")
        results.add(repr(sorted((k, v) for k, v in row.items() if k not in {"id", "revision"})))
    assert len(results) == 1
    sightings = [replace(one, id="2404.00001") for one in sightings]
    library.put(sightings)
    once = library.get("2404.00001")
    assert library.put(sightings).changed == 0
    assert library.get("2404.00001") == once
    assert once["withdrawn"]
    assert once["version"] == 3


def test_changes_are_told_once_each_in_order(library):
    papers = [replace(FIRST, id=f"2403.{number:05}") for number in range(1, 26)]
    library.put(papers[:10])
    library.put(papers[10:])
    told = [row["id"] for page in library.since(0, page=4) for row in page]
    assert told == [paper.id for paper in papers]
    library.put([replace(papers[3], version=2)])
    assert [row["id"] for page in library.since(2) for row in page] == [papers[3].id]


def test_a_transaction_that_fails_leaves_nothing(library):
    with pytest.raises(Exception, match=r".*"):
        library.put([FIRST, replace(FIRST, id="2403.00002", title=None)])
    assert library.count() == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("YOLOv8 and yolov11n", ["yolo"]),
        ("DINOv2, ResNet50", ["dino", "resnet"]),
        ("FlashAttention2", ["flashattention", "flash", "attention"]),
        ("BERTScore", ["bert", "score"]),
        ("LoRA for plain words", []),
        ("x" * 5000 + "1", []),
    ],
)
def test_glued_words_are_found_by_their_parts(text, expected):
    assert parts(text) == expected


@pytest.mark.parametrize(
    ("key", "expected"),
    [("1706.03762", "2017-06-01"), ("hep-th/9901001", "1999-01-01"), ("2701.00001", "2027-01-15")],
)
def test_a_paper_that_only_a_list_of_references_named_is_as_old_as_its_id(library, key, expected):
    library.put([replace(FIRST, id=key, published=None, version=None)])
    assert library.get(key)["announced"] == expected
