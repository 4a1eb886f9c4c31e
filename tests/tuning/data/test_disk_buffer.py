"""Samples on disk are the samples in memory, in their order, as often as they are gone through."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.tuning.data.disk_buffer import DiskBuffer
from etude.tuning.data.schema import Message, Sample, ToolCall


def sample(number):
    if number % 3 == 0:
        return Sample.plain(f"text {number} \udc80", f"a.txt:{number}")
    call = ToolCall("look", {"at": number}, "c1")
    turns = (Message("user", f"{number}?"), Message("assistant", "", tool_calls=(call,)))
    return Sample(turns, None, f"a.jsonl:{number}", tools=({"type": "function"},), desirable=True)


@given(st.integers(0, 60), st.integers(0, 20), st.integers(1, 9))
def test_it_is_the_list_that_was_appended(count, in_memory, chunk):
    spool, plain = DiskBuffer(in_memory, chunk), [sample(number) for number in range(count)]
    for each in plain:
        spool.append(each)
    assert len(spool) == count
    assert list(spool) == plain and list(spool) == plain
    assert [spool[index] for index in range(-count, count)] == plain + plain
    assert spool[3:] == plain[3:] and spool[::-2] == plain[::-2]
    with pytest.raises(IndexError):
        spool[count]
    spool.clear()
    assert not spool and list(spool) == []
    spool.append(sample(1))
    assert list(spool) == [sample(1)]


def test_where_nothing_can_be_put_aside_all_stay_in_memory(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ETUDE_HOME", str(tmp_path / "file"))
    spool = DiskBuffer(2, 2)
    for number in range(9):
        spool.append(sample(number))
    assert list(spool) == [sample(number) for number in range(9)]


def test_a_disk_that_fills_is_told_in_one_line():
    code = (
        "import resource, signal\n"
        "from etude.tuning.data.schema import Sample\n"
        "from etude.tuning.data.disk_buffer import DiskBuffer\n"
        "from etude.core.errors import DataError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "spool = DiskBuffer(0, 1)\n"
        "try:\n"
        "    for number in range(100):\n"
        "        spool.append(Sample.plain('x' * 500, 'a.txt:1'))\n"
        "except DataError as error:\n"
        "    print(error)\n"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "cannot store samples" in told.stdout and "data.max_train" in told.stdout, told.stderr


def test_memory_does_not_grow_with_the_rows(tmp_path):
    """The resident set after 40,000 rows is that after 20,000, where rows are 1.5 KB each."""
    code = (
        "import resource, sys\n"
        "from etude.tuning.data.samples import load_samples\n"
        "from etude.tuning.config.sections.data import DataSpec\n"
        "split = load_samples(DataSpec(train=sys.argv[1], eval_fraction=0.001), 0)\n"
        "assert len(split.train) + len(split.eval) == int(sys.argv[2])\n"
        "assert sum(len(s.messages) for s in split.train) == 2 * len(split.train)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )

    def peak(count):
        file = tmp_path / f"{count}.jsonl"
        with file.open("w") as lines:
            for number in range(count):
                turns = [
                    {"role": "user", "content": f"{number} " + "why " * 180},
                    {"role": "assistant", "content": f"{number} " + "so " * 240},
                ]
                lines.write(json.dumps({"messages": turns}) + "\n")
        command = [sys.executable, "-c", code, str(file), str(count)]
        environment = {**os.environ, "ETUDE_HOME": str(tmp_path)}
        return int(subprocess.check_output(command, env=environment, text=True))

    few, many = peak(20_000), peak(60_000)
    # In memory the 40,000 more would be 80 MB.
    assert many - few < 12_000, (few, many)
