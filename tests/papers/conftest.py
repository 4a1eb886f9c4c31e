"""Libraries of papers, empty."""

import pytest

from etude.papers.library import Library
from etude.store.engine import open_store


@pytest.fixture
def sqlite_address(tmp_path):
    return f"sqlite:///{tmp_path / 'papers.sqlite3'}"


@pytest.fixture
def papers(sqlite_address):
    """An empty library in SQLite."""
    engine = open_store(sqlite_address)
    yield Library(engine)
    engine.dispose()
