import sqlite3

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

import etude.store.practice  # noqa: F401 - its tables
from etude.core.errors import StoreError
from etude.papers.library import Library
from etude.practice.progress import LearnerProgress
from etude.store.base import Base
from etude.store.engine import HEAD, MIGRATIONS, open_store, schema_version


def test_migrations_make_the_tables_that_the_code_describes(tmp_path):
    engine = open_store(f"sqlite:///{tmp_path / 'x.sqlite3'}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    assert schema_version(engine) == HEAD


def test_a_database_of_a_newer_etude_is_left_alone(tmp_path):
    file = tmp_path / "x.sqlite3"
    open_store(f"sqlite:///{file}").dispose()
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    before = file.read_bytes()
    with pytest.raises(StoreError, match="newer Etude"):
        open_store(f"sqlite:///{file}")
    assert file.read_bytes() == before


def test_opening_twice_changes_nothing(tmp_path):
    address = f"sqlite:///{tmp_path / 'deep' / 'x.sqlite3'}"
    open_store(address).dispose()
    assert schema_version(open_store(address)) == HEAD


# What databases of earlier releases hold: the tables of their version, and rows in them.
ROWS = {
    "0001": [
        "INSERT INTO practice_submissions (key, learner, slug, source, seed, state, attempts,"
        " created, finished, kind, verdict)"
        " VALUES ('k', 'ada', 'create-tensordataset', 'x', 7, 'done', 1,"
        """ 1.5, 2.5, 'accepted', '{"form": 1, "kind": "accepted", "says": "all"}')""",
        "INSERT INTO practice_learners (name, timezone) VALUES ('ada', 'Europe/Berlin')",
        "INSERT INTO practice_reviews VALUES ('ada', 'datasets', 2, '2026-11-02', 3, 1)",
    ],
    "0002": [
        "INSERT INTO papers (id, title, abstract, authors, categories, announced, basis,"
        " first_seen, revision)"
        " VALUES ('2403.00001', 'T', 'A', '[]', '[]', '2024-03-01', '{}', 1.0, 1)",
        "INSERT INTO papers_opinions VALUES ('ada', '2403.00001', 1, 1.0)",
    ],
}


@pytest.mark.parametrize("version", sorted(ROWS))
def test_a_database_of_an_earlier_release_keeps_its_rows(address, version):
    """Each earlier schema, on both kinds of database, is brought up to date with all it holds."""
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import create_engine, text

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    old = create_engine(address)
    released = [name for name in sorted(ROWS) if name <= version]
    with old.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, version)
        for name in released:
            for row in ROWS[name]:
                connection.execute(text(row.replace(":", "\\:")))
    old.dispose()
    engine = open_store(address)
    assert schema_version(engine) == HEAD
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
        assert connection.execute(text("SELECT slug, seed FROM practice_submissions")).all() == [
            ("create-tensordataset", 7)
        ]
    progress = LearnerProgress(engine, "ada")
    stats = progress.stats()
    assert (stats.solved, stats.submissions, progress.timezone().key) == (1, 1, "Europe/Berlin")
    if version >= "0002":
        assert Library(engine).get("2403.00001")["title"] == "T"
    engine.dispose()
