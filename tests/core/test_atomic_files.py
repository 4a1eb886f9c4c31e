import subprocess
import sys

import pytest

from etude.core.atomic_files import (
    make_folder_aside,
    remove_folder,
    replace_bytes,
    replace_file,
    replace_folder,
    replace_text,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_and_nothing_is_left_aside(tmp_path):
    file = tmp_path / "x"
    replace_text(file, "é")
    assert file.read_bytes() == "é".encode()
    replace_bytes(file, b"new")
    assert file.read_bytes() == b"new"
    assert file.stat().st_mode & 0o777 == 0o644
    assert names(tmp_path) == ["x"]


def test_a_write_that_fails_changes_nothing(tmp_path):
    file = tmp_path / "x"
    file.write_text("old")

    def write(aside):
        aside.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        replace_file(file, write)
    assert file.read_text() == "old"
    assert names(tmp_path) == ["x"]


def test_a_writer_may_replace_the_file_that_it_is_given(tmp_path):
    def write(aside):
        other = tmp_path / "other"
        other.write_text("linked")
        other.replace(aside)

    replace_file(tmp_path / "x", write)
    assert (tmp_path / "x").read_text() == "linked"
    assert names(tmp_path) == ["x"]


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    file = tmp_path / "x"
    file.write_text("old")
    code = """
import os, signal, sys
from pathlib import Path
from etude.core.atomic_files import replace_file
def write(aside):
    aside.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
replace_file(Path(sys.argv[1]), write)
"""
    assert subprocess.run([sys.executable, "-c", code, file]).returncode == -9
    assert file.read_text() == "old"


@pytest.mark.parametrize("before", ["absent", "empty", "full"])
def test_a_folder_is_replaced_whole(tmp_path, before):
    folder = tmp_path / "deep" / "model"
    if before != "absent":
        folder.mkdir(parents=True)
    if before == "full":
        (folder / "old").write_text("old")
    aside = make_folder_aside(folder)
    (aside / "below").mkdir()
    (aside / "below" / "new").write_text("new")
    (aside / "below" / "new").chmod(0o600)
    replace_folder(aside, folder)
    assert names(folder) == ["below"]
    assert (folder / "below" / "new").read_text() == "new"
    assert (folder / "below" / "new").stat().st_mode & 0o777 == 0o644
    assert folder.stat().st_mode & 0o777 == 0o755
    assert names(folder.parent) == ["model"]


def test_a_folder_that_cannot_be_put_there_leaves_the_old_one(tmp_path, monkeypatch):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "old").write_text("old")
    aside = make_folder_aside(folder)
    rename = type(folder).rename

    def refused(self, target):
        if self == aside:
            raise PermissionError(13, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(type(folder), "rename", refused)
    with pytest.raises(PermissionError):
        replace_folder(aside, folder)
    assert (folder / "old").read_text() == "old"
    assert names(tmp_path) == sorted([aside.name, "model"])


def test_two_that_put_a_folder_there_at_once_leave_one_whole(tmp_path, monkeypatch):
    folder = tmp_path / "tokens"
    mine, theirs = make_folder_aside(folder), make_folder_aside(folder)
    (mine / "mine").write_text("")
    (theirs / "theirs").write_text("")
    rename = type(folder).rename

    def overtaken(self, target):
        if self == mine and theirs.exists():
            rename(theirs, folder)
        return rename(self, target)

    monkeypatch.setattr(type(folder), "rename", overtaken)
    replace_folder(mine, folder)
    assert names(folder) == ["mine"]
    assert names(tmp_path) == ["tokens"]


def test_a_folder_is_removed_with_what_a_kill_left_of_an_earlier_removal(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (tmp_path / ".removed-run").mkdir()
    (tmp_path / ".removed-run" / "x").write_text("")
    remove_folder(folder)
    assert names(tmp_path) == []
    with pytest.raises(FileNotFoundError):
        remove_folder(folder)
