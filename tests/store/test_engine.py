import sqlite3

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

import etude.store.practice  # noqa: F401 - its tables
from etude.errors import StoreError
from etude.store.base import Base
from etude.store.engine import HEAD, open_store, schema_version


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
