"""A run's folder: locks between real processes, writes that are killed, disks that are full."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.core.atomic_files import to_json
from etude.core.errors import RunError
from etude.tuning.runs.environment import environment
from etude.tuning.runs.folder import RunFolder, find_run, list_runs, remove_run


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Run Python code in a process of its own; its first line says that it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process


def ready(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    if not line:
        assert process.stderr is not None
        pytest.fail(process.stderr.read())
    return line


WRITER = """
    import sys, time
    from etude.tuning.runs.folder import RunFolder
    with RunFolder.open(sys.argv[1]) as folder:
        folder.set_state("running")
        print("ready", flush=True)
        time.sleep(60)
"""


def test_folder_that_another_process_writes_is_refused_with_its_pid(tmp_path: Path):
    folder = RunFolder.create("a", tmp_path)
    other = start(WRITER, folder.path)
    try:
        ready(other)
        with pytest.raises(RunError, match=rf"written by process {other.pid}"):
            folder.lock()
        assert folder.is_locked()
        assert folder.state == "running"
    finally:
        other.kill()
        other.communicate()
    # The kernel's lock went with the process: nothing stale to clear away.
    assert folder.state == "killed"
    with folder:
        assert folder.is_locked()
    assert not folder.is_locked()


def test_second_writer_in_the_same_process_is_refused_too(tmp_path: Path):
    with RunFolder.create("a", tmp_path) as folder:
        with pytest.raises(RunError, match=str(os.getpid())):
            RunFolder.open(folder.path).lock()
        folder.lock()
    RunFolder.open(folder.path).lock()


def test_forked_worker_that_outlives_a_killed_run_does_not_keep_it_locked(tmp_path: Path):
    folder = RunFolder.create("a", tmp_path)
    code = """
        import os, sys, time
        from etude.tuning.runs.folder import RunFolder
        folder = RunFolder.open(sys.argv[1])
        folder.lock()
        worker = os.fork()
        if worker == 0:
            os.close(1)
            time.sleep(60)
        print(worker, flush=True)
        time.sleep(60)
    """
    parent = start(code, folder.path)
    worker = int(ready(parent))
    try:
        parent.kill()
        parent.wait()
        os.kill(worker, 0)
        folder.lock()
        folder.release()
    finally:
        os.kill(worker, signal.SIGKILL)
        parent.communicate()


def test_reader_sees_whole_lines_only_of_a_run_killed_while_it_writes(tmp_path: Path):
    folder = RunFolder.create("a", tmp_path)
    code = """
        import sys
        from etude.tuning.runs.folder import RunFolder
        with RunFolder.open(sys.argv[1]) as folder:
            for step in range(10**6):
                folder.append_metrics({"step": step, "loss": 1 / (step + 1), "pad": "x" * 200})
                if step == 20:
                    print("ready", flush=True)
    """
    writer = start(code, folder.path)
    ready(writer)
    for _ in range(20):
        steps = [record["step"] for record in folder.read_metrics()]
        assert steps == list(range(len(steps)))
    writer.kill()
    writer.communicate()
    written = [record["step"] for record in folder.read_metrics()]
    assert written == list(range(len(written)))
    assert len(written) > 20


@given(st.integers(min_value=0, max_value=400))
def test_record_cut_short_anywhere_is_dropped_and_written_over(tmp_path_factory, cut: int):
    """Cut the file at every place: what was whole before it stays, and appending goes on."""
    folder = RunFolder.create("a", tmp_path_factory.mktemp("runs"))
    with folder:
        for step in range(8):
            folder.append_metrics({"step": step, "text": "é\n" * step})
    whole = folder.metrics.read_bytes()
    kept = whole[: min(cut, len(whole))]
    folder.metrics.write_bytes(kept)
    expected = list(range(kept.count(b"\n")))
    assert [record["step"] for record in folder.read_metrics()] == expected
    with folder:
        folder.append_metrics({"step": 99})
    assert [record["step"] for record in folder.read_metrics()] == [*expected, 99]


def test_line_that_is_not_json_is_named_by_its_number(tmp_path: Path):
    folder = RunFolder.create("a", tmp_path)
    folder.metrics.write_text('{"step": 1}\noh no\n{"step": 2}\n')
    with pytest.raises(RunError, match=r"metrics\.jsonl, line 2"):
        folder.read_metrics()


def test_truncating_drops_what_came_after_the_checkpoint(tmp_path: Path):
    with RunFolder.create("a", tmp_path) as folder:
        for step in range(1, 7):
            folder.append_metrics({"step": step, "loss": 1.0})
            if step % 2 == 0:
                folder.append_metrics({"step": step, "eval_loss": 2.0})
        folder.truncate_metrics(4)
        folder.append_metrics({"step": 5, "loss": 3.0})
    records = folder.read_metrics()
    assert [record["step"] for record in records] == [1, 2, 2, 3, 4, 4, 5]
    assert records[-1]["loss"] == 3.0


def test_number_that_is_not_finite_is_null_and_every_line_is_json(tmp_path: Path):
    with RunFolder.create("a", tmp_path) as folder:
        folder.append_metrics({"step": 1, "loss": float("nan"), "lr": float("inf"), "x": [1e400]})
    (line,) = folder.metrics.read_text().splitlines()
    assert json.loads(line, parse_constant=pytest.fail) == {
        "step": 1,
        "loss": None,
        "lr": None,
        "x": [None],
    }


@given(st.text())
def test_any_text_can_be_written_half_surrogate_pairs_included(tmp_path_factory, text: str):
    folder = RunFolder.create("a", tmp_path_factory.mktemp("runs"))
    folder.write_lines("samples.jsonl", [{"prompt": text + "\ud800"}])
    (record,) = folder.read_samples()
    assert record["prompt"] == text + "?"


def test_full_disk_is_one_clear_error_when_appending(tmp_path: Path):
    folder = RunFolder.create("a", tmp_path)
    folder.metrics.symlink_to("/dev/full")
    with folder, pytest.raises(RunError, match=r"metrics\.jsonl: the disk is full"):
        folder.append_metrics({"step": 1})


def test_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path):
    folder = RunFolder.create("a", tmp_path)
    folder.write_json("summary.json", {"loss": 1.0})
    before = sorted(folder.path.iterdir())
    code = """
        import resource, signal, sys
        from etude.core.errors import RunError
        from etude.tuning.runs.folder import RunFolder
        folder = RunFolder.open(sys.argv[1])
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            folder.write_json("summary.json", {"loss": "x" * 5000})
        except RunError as error:
            print("refused", error, flush=True)
    """
    process = start(code, folder.path)
    assert ready(process).startswith(f"refused cannot write {folder.path}/summary.json")
    process.communicate()
    assert folder.read_json("summary.json") == {"loss": 1.0}
    assert sorted(folder.path.iterdir()) == before


def test_file_is_old_or_new_whenever_its_writer_is_killed(tmp_path: Path):
    folder = RunFolder.create("a", tmp_path)
    code = """
        import sys
        from etude.tuning.runs.folder import RunFolder
        folder = RunFolder.open(sys.argv[1])
        print("ready", flush=True)
        for number in range(10**6):
            folder.write_json("summary.json", {"number": number, "pad": [number] * 2000})
    """
    for _ in range(5):
        writer = start(code, folder.path)
        ready(writer)
        while folder.read_json("summary.json") is None:
            pass
        writer.kill()
        writer.communicate()
        content = folder.read_json("summary.json")
        assert content["pad"] == [content["number"]] * 2000


def test_latest_names_the_newest_run_and_runs_of_one_second_do_not_collide(tmp_path: Path):
    made = [RunFolder.create("a", tmp_path) for _ in range(3)]
    assert len({folder.path for folder in made}) == 3
    assert (tmp_path / "latest").is_symlink()
    for asked in ("latest", str(tmp_path / "latest")):
        assert find_run(asked, tmp_path).path.resolve() == made[-1].path
    assert {run.path for run in list_runs(tmp_path)} == {folder.path for folder in made}


def test_latest_is_a_text_file_where_links_are_not_allowed(tmp_path: Path, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise OSError("links are not allowed here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    RunFolder.create("first", tmp_path)
    second = RunFolder.create("second", tmp_path)
    assert not (tmp_path / "latest").is_symlink()
    for asked in ("latest", str(tmp_path / "latest")):
        assert find_run(asked, tmp_path).path == second.path


def test_run_is_found_by_name_unique_start_or_path_and_near_names_are_offered(tmp_path: Path):
    docstrings = RunFolder.create("docstrings", tmp_path)
    gsm8k = RunFolder.create("gsm8k", tmp_path)
    assert find_run(docstrings.name, tmp_path).path == docstrings.path
    assert find_run("gs", tmp_path).path == gsm8k.path
    assert find_run(str(gsm8k.path), "elsewhere").path == gsm8k.path
    with pytest.raises(RunError, match=docstrings.name):
        find_run("docstring-2026", tmp_path)
    RunFolder.create("gsm8k-long", tmp_path)
    with pytest.raises(RunError, match="matches several runs"):
        find_run("gsm8k", tmp_path)
    with pytest.raises(RunError, match="no runs in"):
        find_run("latest", tmp_path / "empty")


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "-flag", "a b"])
def test_name_that_would_leave_the_folder_is_refused(tmp_path: Path, name: str):
    with pytest.raises(RunError, match="cannot be named"):
        RunFolder.create(name, tmp_path)


def test_removing_the_latest_run_lets_latest_name_the_one_before(tmp_path: Path):
    first, second = (RunFolder.create(name, tmp_path) for name in ("first", "second"))
    remove_run(second)
    assert find_run("latest", tmp_path).name == first.name
    remove_run(first)
    assert list_runs(tmp_path) == []
    assert sorted(tmp_path.iterdir()) == []


def test_run_that_is_being_written_is_not_removed(tmp_path: Path):
    folder = RunFolder.create("a", tmp_path)
    other = start(WRITER, folder.path)
    try:
        ready(other)
        with pytest.raises(RunError, match=str(other.pid)):
            remove_run(folder)
        assert folder.recipe.parent.is_dir()
    finally:
        other.kill()
        other.communicate()


def test_one_damaged_run_does_not_hide_the_others(tmp_path: Path):
    good, bad = (RunFolder.create(name, tmp_path) for name in ("good", "bad"))
    (bad.path / "state.json").write_text("{")
    assert {run.name: run.state for run in list_runs(tmp_path)} == {
        good.name: "stopped",
        bad.name: "failed",
    }


def test_environment_tells_versions_and_commit_and_no_secret(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret_of_the_test")
    monkeypatch.chdir(tmp_path)
    assert environment()["git"] is None
    for command in (
        ["init", "-q"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "a"],
    ):
        subprocess.run(["git", *command], check=True)
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    told = environment()
    assert told["git"] == commit
    (tmp_path / "file").write_text("a")
    subprocess.run(["git", "add", "file"], check=True)
    assert environment()["git"] == f"{commit}+"
    text = to_json(told)
    assert "hf_secret_of_the_test" not in text
    assert str(Path.home()) not in text
    assert {"etude", "python", "torch", "transformers", "threads"} <= told.keys()
