import sqlite3

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import select

from etude.core.errors import StoreError
from etude.papers.library import Library
from etude.papers.reader import Reader
from etude.practice.explanations import Explanations
from etude.practice.progress import UserProgress
from etude.store.base import Base
from etude.store.engine import HEAD, MIGRATIONS, open_store, schema_version
from etude.store.practice import Daily


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
        "INSERT INTO practice_openings VALUES ('ada', 'create-tensordataset', 1.0, 2, FALSE)",
        "INSERT INTO practice_reviews VALUES ('ada', 'datasets', 2, '2026-11-02', 3, 1)",
        "INSERT INTO practice_dailies (learner, day, slug, why)"
        " VALUES ('ada', '2026-11-01', 'create-tensordataset', 'new to you')",
    ],
    "0002": [
        "INSERT INTO papers (id, title, abstract, authors, categories, announced, basis,"
        " first_seen, revision)"
        " VALUES ('2403.00001', 'T', 'A', '[]', '[]', '2024-03-01', '{}', 1.0, 1)",
        "INSERT INTO papers_opinions VALUES ('ada', '2403.00001', 1, 1.0)",
        "INSERT INTO papers_opinions VALUES ('countess', '2403.00001', -1, 2.0)",
        "INSERT INTO papers_tags VALUES ('ada', 'read', '2403.00001', 1.0)",
        "INSERT INTO papers_following VALUES ('ada', 'A. Turing', 1.0)",
        "INSERT INTO papers_searches VALUES ('ada', 'lora', 'title:lora', 0, 1.0)",
    ],
    "0003": [
        "INSERT INTO practice_explanations (learner, slug, model, text, withheld, at)"
        " VALUES ('ada', 'create-tensordataset', 'm', 'because', '', 1.0)",
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
    progress = UserProgress(engine, "ada")
    stats = progress.stats()
    assert (stats.solved, stats.submissions, progress.timezone().key) == (1, 1, "Europe/Berlin")
    assert [(one.name, one.right, one.wrong) for one in stats.concepts] == [("datasets", 3, 1)]
    assert progress.hints_taken("create-tensordataset") == 2
    with engine.connect() as connection:
        assert connection.scalars(select(Daily.user)).all() == ["ada"]
    if version >= "0002":
        assert Library(engine).get("2403.00001")["title"] == "T"
        reader = Reader(engine, "ada")
        assert reader.opinions() == {"2403.00001": 1}
        assert Reader(engine, "countess").opinions() == {"2403.00001": -1}
        assert reader.tags() == {"read": ["2403.00001"]}
        assert reader.following() == ["A. Turing"]
        assert [search.query for search in reader.searches()] == ["title:lora"]
    if version >= "0003":
        assert Explanations(engine, "ada").rate(True)[1:] == ("create-tensordataset", "m")
    engine.dispose()


def test_the_schema_before_users_can_be_had_back(address):
    """Whoever goes back to the release before finds each row under its own name."""
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import text

    engine = open_store(address)
    UserProgress(engine, "ada").set_timezone("Europe/Berlin")
    Reader(engine, "bob").follow("A. Turing")
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0003")
        learners = connection.execute(text("SELECT name FROM practice_learners")).scalars()
        readers = connection.execute(text("SELECT reader FROM papers_following")).scalars()
        assert (list(learners), list(readers)) == (["ada"], ["bob"])
    engine.dispose()
    engine = open_store(address)
    assert UserProgress(engine, "ada").timezone().key == "Europe/Berlin"
    assert Reader(engine, "bob").following() == ["A. Turing"]
    engine.dispose()
