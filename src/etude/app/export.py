"""Taking an adapter out of Etude: merged into its base, or in the format of another program."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from etude.core.errors import AdapterError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from etude.core.progress import Progress
    from etude.tuning.adapters.merge import Into, MergeReport
    from etude.tuning.export.gguf_lora import GGUFLora
    from etude.tuning.export.peft import PeftAdapter
    from etude.tuning.model_soup import Soup

Number = Literal["f32", "f16"]


def adapter_folder(run: str, runs: Path = Path("runs")) -> Path:
    """Return the folder of an adapter.

    Args:
        run: a run (`latest`, a name, a path), or the folder of an adapter.
        runs: folder that runs are kept in.

    Raises:
        RunError: there is no such run.
    """
    from etude.tuning.adapters.saved_parts import CONFIG
    from etude.tuning.runs.folder import find_run

    return Path(run) if (Path(run) / CONFIG).is_file() else find_run(run, runs).adapter


def average_adapters(
    names: Sequence[str],
    base: Path = Path("runs"),
    output: Path | None = None,
    *,
    rank: int | None = None,
    data: Path | None = None,
    progress: Progress | None = None,
) -> Soup:
    """Average runs into a run of its own, and measure all on the same samples.

    Args:
        names: two runs or more.
        base: folder that runs are kept in.
        output: folder to write; None: a new one in `base`.
        rank: of the average; None: the sum of the ranks, which is exact.
        data: file to measure on; None: what the first run held out.
        progress: reports every stage.

    Raises:
        EtudeError: the runs cannot be averaged, or the folder exists; nothing is left of it.
    """
    from etude.app.runs import find_runs_to_compare
    from etude.tuning.config.recipe import Recipe
    from etude.tuning.model_soup import average_runs
    from etude.tuning.runs.folder import RunFolder, remove_run

    folders = find_runs_to_compare(names, base)
    if output is not None:
        folder = RunFolder.make(output)
    else:
        folder = RunFolder.create(f"{Recipe.read_run(folders[0].recipe).name}-average", base)
    try:
        with folder:
            return average_runs(folders, folder, rank=rank, data=data, progress=progress)
    except BaseException:
        remove_run(folder)
        raise


def merge_run(
    run: str,
    output: Path,
    runs: Path = Path("runs"),
    *,
    base: Into | None = None,
    dtype: str = "auto",
    model: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> MergeReport:
    """Merge an adapter into its base, with the head of its task and the names of its classes.

    Args:
        run: a run, or the folder of an adapter.
        output: folder to write.
        runs: folder that runs are kept in.
        base: weights to merge into; None: those trained on.
        dtype: `float32`, `bfloat16`, `float16`, or `auto`.
        model: the base, if the adapter does not name it or it has moved.
        overwrite: replace a model that is there.
        progress: reports every stage.

    Raises:
        EtudeError: the adapter does not name its base, they cannot be merged, or the output cannot
            be written.
    """
    from etude.tuning.adapters.merge import merge_adapter
    from etude.tuning.adapters.read import read_adapter
    from etude.tuning.config.sections.model import ModelSpec
    from etude.tuning.tasks.base import TaskRecord
    from etude.tuning.tasks.registry import task_named

    folder = adapter_folder(run, runs)
    saved = read_adapter(folder)
    name = model or (saved.provenance.base if saved.provenance else saved.base)
    if name is None:
        raise AdapterError(f"{folder} does not name its base model; name it with --model")
    record = TaskRecord.read(folder)
    report = merge_adapter(
        ModelSpec(id=name, keep_layers=saved.provenance and saved.provenance.kept_layers),
        folder,
        output,
        base=base,
        dtype=dtype,
        overwrite=overwrite,
        head=task_named(record.task).saved_head(record),
        progress=progress,
    )
    if record.labels:
        record.write(report.folder)
    return report


def export_gguf(
    run: str,
    output: Path,
    runs: Path = Path("runs"),
    *,
    number: Number = "f32",
    model: str | None = None,
    overwrite: bool = False,
) -> GGUFLora:
    """Write an adapter as a LoRA file for llama.cpp; see `export_gguf_lora`.

    Raises:
        EtudeError: it cannot be expressed as such a file, or the file cannot be written.
    """
    from etude.tuning.export.gguf_lora import export_gguf_lora

    folder = adapter_folder(run, runs)
    return export_gguf_lora(folder, output, model=model, number=number, overwrite=overwrite)


def export_peft(
    run: str, output: Path, runs: Path = Path("runs"), *, overwrite: bool = False
) -> PeftAdapter:
    """Write an adapter for PEFT, its factors in float32; see `tuning.export.peft`.

    Raises:
        EtudeError: the adapter is damaged, or the folder cannot be written.
    """
    from etude.tuning.export import peft

    return peft.export_peft(adapter_folder(run, runs), output, overwrite=overwrite)
