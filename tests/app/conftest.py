"""A person's installation of its own: data folder, database and name."""

from __future__ import annotations

import pytest


@pytest.fixture
def installation(tmp_path, monkeypatch):
    """A data folder that nobody has used; returns the folder."""
    monkeypatch.setenv("ETUDE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ETUDE_USER", "ada")
    monkeypatch.delenv("ETUDE_DATABASE", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path
