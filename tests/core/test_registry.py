"""Registries: entries register themselves, once, and only when one of them is wanted."""

from __future__ import annotations

import sys

import pytest

from etude.core.registry import Registry


def test_the_modules_of_a_package_are_imported_at_the_first_look_up(tmp_path, monkeypatch):
    package = tmp_path / "colours"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from etude.core.registry import Registry\nCOLOURS = Registry('colour', 'colours')\n"
    )
    for name in ("red", "green"):
        (package / f"{name}.py").write_text(
            f"from colours import COLOURS\nCOLOURS.register({name!r}, len({name!r}))\n"
        )
    monkeypatch.syspath_prepend(str(tmp_path))
    from colours import COLOURS

    assert "colours.red" not in sys.modules
    assert dict(COLOURS) == {"green": 5, "red": 3}
    for name in ("colours", "colours.red", "colours.green"):
        monkeypatch.delitem(sys.modules, name)


def test_a_name_is_registered_once():
    registry: Registry[int] = Registry("number")
    registry.register("one", 1)
    with pytest.raises(ValueError, match="two definitions of the number 'one'"):
        registry.register("one", 2)
    assert dict(registry) == {"one": 1}
    with pytest.raises(KeyError):
        registry["two"]
