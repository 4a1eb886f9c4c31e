"""Checkpoints are whole or absent."""

from __future__ import annotations

import errno
import os

import pytest
import torch

from etude.core.errors import RunError
from etude.tuning.training.checkpoint import (
    Checkpoint,
    Counters,
    last_checkpoint,
    list_checkpoints,
    read_checkpoint,
    remove_torn,
    save_checkpoint,
)


def _checkpoint(step):
    weights = {"a": torch.full((1000,), float(step))}
    return Checkpoint(weights, {"state": {}, "param_groups": []}, Counters(step=step), "data")


def test_what_is_read_is_what_was_saved(tmp_path):
    path = save_checkpoint(tmp_path, _checkpoint(3))
    read = read_checkpoint(path)
    assert read.counters == Counters(step=3)
    assert torch.equal(read.weights["a"], torch.full((1000,), 3.0))
    assert read.data == "data"


def test_only_the_newest_are_kept(tmp_path):
    for step in (5, 10, 15, 20):
        save_checkpoint(tmp_path, _checkpoint(step), keep=2)
    assert [p.name for p in list_checkpoints(tmp_path)] == ["step-000015.pt", "step-000020.pt"]


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_checkpoint_is_passed_over_and_named(tmp_path, damage):
    save_checkpoint(tmp_path, _checkpoint(1))
    newest = save_checkpoint(tmp_path, _checkpoint(2))
    content = bytearray(newest.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "flip":
        middle = content.find(torch.full((4,), 2.0).numpy().tobytes())
        content[middle] ^= 0xFF
    else:
        content = bytearray()
    newest.write_bytes(content)
    found, passed = last_checkpoint(tmp_path)
    assert found is not None
    assert found.counters.step == 1
    assert len(passed) == 1
    assert "step-000002.pt" in passed[0]


def test_a_full_disk_leaves_the_previous_checkpoint_and_says_so(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, _checkpoint(1))

    def full(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="the disk is full; earlier checkpoints are intact"):
        save_checkpoint(tmp_path, _checkpoint(2))
    monkeypatch.undo()
    found, passed = last_checkpoint(tmp_path)
    assert found is not None
    assert found.counters.step == 1
    assert not passed
    assert [p.name for p in tmp_path.iterdir()] == ["step-000001.pt"]


def test_what_a_killed_writer_left_is_removed(tmp_path):
    (tmp_path / ".step-000004.pt.abc").write_bytes(b"half")
    save_checkpoint(tmp_path, _checkpoint(2))
    remove_torn(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["step-000002.pt"]
