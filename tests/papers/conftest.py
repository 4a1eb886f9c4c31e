"""A database of each kind for what the reading room keeps."""

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from etude.store.engine import open_store


def _programs() -> Path | None:
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    return next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)


@pytest.fixture(scope="session")
def postgres():
    """The address of a PostgreSQL server that runs for these tests only."""
    programs = _programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    # Not below pytest's folder, which later sessions clear while this one may still run.
    folder = Path(tempfile.mkdtemp(prefix="etude-postgres-"))
    user = {}
    if os.geteuid() == 0:  # it refuses to run as root
        shutil.chown(folder, "nobody")
        user = {"user": "nobody"}
    data = folder / "data"
    run = {"check": True, "capture_output": True, "cwd": folder, **user}
    subprocess.run(
        [programs / "initdb", "-D", data, "-U", "etude", "-A", "trust", "-E", "UTF8", "--no-sync"],
        **run,
    )
    options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"
    subprocess.run(
        [programs / "pg_ctl", "-D", data, "-w", "-l", folder / "log", "-o", options, "start"], **run
    )
    yield f"postgresql+psycopg://etude@/postgres?host={folder}"
    subprocess.run([programs / "pg_ctl", "-D", data, "-m", "immediate", "stop"], **run)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request, tmp_path):
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'etude.sqlite3'}"
    server = request.getfixturevalue("postgres")
    import psycopg

    name = f"test{time.time_ns()}"
    with psycopg.connect(server.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return server.replace("/postgres?", f"/{name}?")


@pytest.fixture
def engine(address):
    engine = open_store(address)
    yield engine
    engine.dispose()
