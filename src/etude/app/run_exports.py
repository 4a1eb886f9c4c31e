"""What can be made of a run's adapter on its page: a merged model, or a file for another program.

It is made by a process of its own (`work`), in the folder `exports` of the run, whole or not at
all. What it will take is known before, and has to fit on the disk.
"""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from etude.app.work import WorkError, WorkState, work_of_run
from etude.core.errors import RunError
from etude.core.machine import disk_free

if TYPE_CHECKING:
    from etude.app.work import Reporter, WorkRequest
    from etude.tuning.runs.folder import RunFolder

ExportName = Literal["merged", "gguf", "peft"]
EXPORTS = "exports"
KINDS: dict[ExportName, tuple[str, ...]] = {
    "merged": (
        "bfloat16",
        "float16",
        "float32",
        "bfloat16:original",
        "float16:original",
        "float32:original",
    ),
    "gguf": ("f16", "f32"),
    "peft": ("float32",),
}
"""Number formats of each, the first by default; `:original` merges into the weights before they
were quantised."""
_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4, "f16": 2, "f32": 4}
_OUTPUTS: dict[ExportName, str] = {"merged": "merged", "gguf": "adapter.gguf", "peft": "peft"}


@dataclass(frozen=True)
class RunExport:
    """Something that can be made of a run, or was."""

    name: ExportName
    sizes: dict[str, int | None]
    """Bytes that it will take in each number format; None: not known before it is made."""
    path: Path
    bytes: int | None
    """Of what was made; None: nothing was."""
    work: WorkState | None
    """What a process does, or did last, unless that has ended well."""


def run_exports(run: RunFolder) -> list[RunExport]:
    """Return what can be made of a run; nothing without an adapter."""
    if not run.adapter.is_dir():
        return []
    states = work_of_run(run).states()
    found: list[RunExport] = []
    for name, kinds in KINDS.items():
        path, state = output_of(run, name), states.get(name)
        numbers = _base_numbers(run) if name == "merged" else _adapter_numbers(run)
        sizes = {
            kind: None if numbers is None else numbers * _BYTES[kind.partition(":")[0]]
            for kind in kinds
        }
        done = state is not None and state.condition == "done"
        found.append(RunExport(name, sizes, path, _size(path), None if done else state))
    return found


def output_of(run: RunFolder, name: ExportName) -> Path:
    """Return the file or folder that is made."""
    return run.path / EXPORTS / _OUTPUTS[name]


def begin_export(run: RunFolder, name: str, kind: str) -> None:
    """Start to make something of a run.

    Raises:
        RunError: it is unknown, it is being made, it would not fit on the disk, or no process can
            be started.
    """
    one = next((one for one in run_exports(run) if one.name == name), None)
    if one is None or kind not in one.sizes:
        raise RunError("there is no adapter to make this of")
    require_space(one.sizes[kind], run.path)
    try:
        work_of_run(run).begin("merge" if one.name == "merged" else "export", one.name, kind)
    except WorkError as error:
        raise RunError(str(error)) from None


def require_space(size: int | None, folder: Path) -> None:
    """Refuse what would not fit on the disk.

    Raises:
        RunError: with both sizes.
    """
    from etude.core.units import size as written

    free = disk_free(folder)
    if size is not None and size > free:
        raise RunError(
            f"this takes {written(size)}, and {written(free)} are free on the disk: free some space"
        )


def stop_export(run: RunFolder, name: str) -> None:
    """End the process that makes something."""
    if name in KINDS:
        work_of_run(run).stop(name)


def remove_export(run: RunFolder, name: str) -> int:
    """Delete what was made; return the bytes freed.

    Raises:
        RunError: there is none, it is being made, or it cannot be deleted.
    """
    one = next((one for one in run_exports(run) if one.name == name), None)
    if one is None or one.bytes is None:
        raise RunError("there is nothing to delete")
    if one.work is not None and one.work.condition == "running":
        raise RunError(f"it is being made ({one.work.step}); stop that first")
    try:
        shutil.rmtree(one.path) if one.path.is_dir() else one.path.unlink()
    except OSError as error:
        raise RunError(f"cannot delete {one.path}: {error.strerror}") from None
    work_of_run(run).forget(one.name)
    return one.bytes


def _size(path: Path) -> int | None:
    if not path.exists():
        return None
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)


def _base_numbers(run: RunFolder) -> int | None:
    """Return the parameters of the base, by the run's summary; None if it has none."""
    with suppress(RunError, KeyError, TypeError, ValueError):
        summary: dict[str, Any] = run.read_json("summary.json") or {}
        return int(summary["total_parameters"]) - int(summary["trainable_parameters"])
    return None


def _adapter_numbers(run: RunFolder) -> int | None:
    """Return the parameters of the adapter, by the header of its file."""
    try:
        with (run.adapter / "adapter_model.safetensors").open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header: dict[str, Any] = json.loads(stream.read(min(length, 50_000_000)))
    except (OSError, ValueError):
        return None
    shapes = [
        cast("list[int]", tensor["shape"])
        for key, tensor in header.items()
        if key != "__metadata__"
    ]
    return sum(_product(shape) for shape in shapes)


def _product(shape: list[int]) -> int:
    numbers = 1
    for size in shape:
        numbers *= size
    return numbers


# -- in the process ------------------------------------------------------------------------------


def merge(request: WorkRequest, progress: Reporter) -> None:
    """Merge a run's adapter: in the process.

    Raises:
        EtudeError: they cannot be merged, or it does not fit on the disk.
    """
    from etude.app.export import merge_run

    run = _begin(request)
    dtype, _, base = request.kind.partition(":")
    merge_run(
        str(run.adapter),
        output_of(run, "merged"),
        base="original" if base else None,
        dtype=dtype,
        overwrite=True,
        progress=progress,
    )


def export(request: WorkRequest, progress: Reporter) -> None:
    """Write a run's adapter in the format of another program: in the process.

    Raises:
        EtudeError: it cannot be expressed in it, or it cannot be written.
    """
    from etude.app.export import export_gguf, export_peft

    run = _begin(request)
    progress.start("Writing", None)
    if request.name == "gguf":
        number = cast("Literal['f32', 'f16']", request.kind)
        output = output_of(run, "gguf")
        export_gguf(str(run.adapter), output, number=number, overwrite=True)
    else:
        export_peft(str(run.adapter), output_of(run, "peft"), overwrite=True)


def _begin(request: WorkRequest) -> RunFolder:
    """Return the run, and remove what a killed process has left half made."""
    from etude.tuning.runs.folder import RunFolder

    run = RunFolder(request.folder.parent)
    (run.path / EXPORTS).mkdir(exist_ok=True)
    own = _OUTPUTS[cast("ExportName", request.name)]
    for left in (run.path / EXPORTS).glob(f".{own}.*"):
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    return run
