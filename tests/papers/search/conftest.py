"""Real papers and libraries that hold some of them."""

from __future__ import annotations

import json
import lzma
from datetime import date

import pytest

from etude.papers.library import Library
from etude.papers.record import Announcement, Sighting
from etude.store.engine import open_store


@pytest.fixture(scope="session")
def corpus(shared_data):
    """The 60,419 real papers, as dicts, in the order of the file."""
    file = shared_data / "papers" / "corpus.jsonl.xz"
    if not file.is_file():
        pytest.skip(f"no papers at {file}")
    with lzma.open(file, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _sighting(row):
    """A paper of the corpus as a source would tell of it."""
    return Sighting(
        row["id"],
        row["title"],
        row["abstract"],
        tuple(row["authors"]),
        tuple(row["categories"]),
        announced=date.fromisoformat(min(row["announced"])),
        announcement=Announcement.NEW,
    )


@pytest.fixture(scope="session")
def make_library(tmp_path_factory):
    """A factory of libraries in SQLite that hold the rows given, put in batches of `batch`."""

    def make(rows, batch=1000):
        place = tmp_path_factory.mktemp("library") / "store.sqlite3"
        library = Library(open_store(f"sqlite:///{place}"), clock=lambda: 1_800_000_000)
        for start in range(0, len(rows), batch):
            library.put([_sighting(row) for row in rows[start : start + batch]])
        return library

    return make


@pytest.fixture(scope="session")
def sighting():
    """The function that makes a sighting of a paper of the corpus."""
    return _sighting
