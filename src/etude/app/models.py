"""Models on this machine: those with an alias, of the hub, and quantised here; their room."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from etude.core.errors import ModelError
from etude.core.paths import models_folder

if TYPE_CHECKING:
    from etude.app.work import WorkState

Origin = Literal["alias", "hub", "quantized"]


@dataclass(frozen=True)
class UsingRun:
    """A run whose recipe names a model."""

    name: str
    at_work: bool
    """Whether it is queued, or a process is at work on it."""


@dataclass(frozen=True)
class ListedModel:
    """A model."""

    name: str
    """As recipes have it."""
    title: str
    """As people read it."""
    origin: Origin
    summary: str
    license: str
    """SPDX identifier where it has one; empty if its files do not say."""
    pulled: bool
    bytes: int
    """On this disk if pulled, otherwise what pulling would take."""
    download: int = 0
    """Bytes to download, if it is not here."""
    folder: Path | None = None
    """Where it is; None if it is not here."""
    quantizable: tuple[str, ...] = ()
    """Formats that it can be quantised to."""
    runs: list[UsingRun] = field(default_factory=list[UsingRun])
    work: WorkState | None = None
    """What a process does to it, or did last, unless that has ended well."""


@dataclass(frozen=True)
class ModelShelf:
    """What is here."""

    models: list[ListedModel]
    """Those pulled first."""
    coming: list[WorkState]
    """Pulls of models that are not listed yet."""
    folder: Path
    bytes: int
    """Of all models that are here."""
    free: int
    """Bytes free on the disk of the folder."""

    def find(self, name: str) -> ListedModel:
        """Return a model by its name.

        Raises:
            ModelError: there is none.
        """
        for one in self.models:
            if one.name == name:
                return one
        raise ModelError(f"there is no model {name!r} here; it may have been removed")


def list_models(runs: Path = Path("runs")) -> ModelShelf:
    """Return the models of the catalogue, of the hub's cache, and those quantised here.

    Args:
        runs: folder of runs, whose recipes say which models they use.
    """
    from etude.app.model_work import work_states

    using, work = _models_of_runs(runs), work_states()
    models: list[ListedModel] = []
    found = [*_from_catalog(), *_from_hub()]
    for one in (*found, *_quantized_here(found)):
        state = work.pop(one.name, None)
        own = using.get(one.name, [])
        if one.folder is not None:
            own = [*own, *using.get(str(one.folder), [])] if str(one.folder) != one.name else own
        shown = None if state is not None and state.condition == "done" else state
        models.append(replace(one, runs=own, work=shown))
    models.sort(key=lambda one: not one.pulled)
    folder = models_folder()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return ModelShelf(
        models,
        [state for state in work.values() if state.action == "pull" and state.condition != "done"],
        folder,
        sum(one.bytes for one in models if one.pulled),
        shutil.disk_usage(there).free,
    )


def _from_catalog() -> list[ListedModel]:
    from etude.tuning.models.catalog import CATALOG

    found: list[ListedModel] = []
    for model in CATALOG.values():
        pulled = model.is_pulled()
        found.append(
            ListedModel(
                model.alias,
                model.alias,
                "alias",
                model.summary,
                model.license,
                pulled,
                _size(model.folder) if pulled else model.unpacked_bytes,
                model.wheel_bytes,
                model.folder if pulled else None,
                _formats(model.alias) if pulled and model.task == "causal language model" else (),
            )
        )
    return found


def _from_hub() -> list[ListedModel]:
    from etude.tuning.models.hub import cached_folders

    found: list[ListedModel] = []
    for name, folder, snapshot in cached_folders():
        config = _json(snapshot / "config.json")
        architecture = next(iter(config.get("architectures") or ()), "")
        found.append(
            ListedModel(
                name,
                name,
                "hub",
                f"From the hub{f', {architecture}' if architecture else ''}",
                _license(snapshot),
                True,
                _size(folder),
                folder=folder,
                quantizable=_formats(name) if str(architecture).endswith("ForCausalLM") else (),
            )
        )
    return found


def _quantized_here(sources: Sequence[ListedModel]) -> list[ListedModel]:
    from etude.app.model_work import KINDS, output_of
    from etude.tuning.models.catalog import CATALOG

    base = models_folder()
    made_of = {output_of(one.name, kind): one for one in sources for kind in KINDS}
    found: list[ListedModel] = []
    for folder in sorted(base.iterdir()) if base.is_dir() else ():
        config = folder / "config.json"
        if folder.name.startswith(".") or folder.name in CATALOG or not config.is_file():
            continue
        quant: dict[str, Any] = _json(config).get("quantization_config") or {}
        kind = quant.get("bnb_4bit_quant_type") or ("int8" if quant.get("load_in_8bit") else "")
        source = made_of.get(folder)
        found.append(
            ListedModel(
                str(folder),
                folder.name,
                "quantized",
                f"{source.title if source else 'A model'} in {kind or 'few bits'}, quantised here",
                source.license if source else _license(folder),
                True,
                _size(folder),
                folder=folder,
            )
        )
    return found


def _formats(name: str) -> tuple[str, ...]:
    from etude.app.model_work import KINDS, output_of

    return tuple(kind for kind in KINDS if not output_of(name, kind).exists())


def begin_pull(name: str) -> None:
    """Start pulling a model, an alias or a hub id, in a process of its own.

    Raises:
        ModelError: the name is neither, or a process is at work on it.
    """
    from etude.app.model_work import begin_work
    from etude.tuning.models.catalog import CATALOG, known_models, unknown_model
    from etude.tuning.models.hub import is_hub_id

    if name not in CATALOG and not is_hub_id(name):
        raise ModelError(f"{unknown_model(name, known_models())}; or a hub id (owner/name)")
    begin_work("pull", name)


def begin_quantizing(name: str, kind: str, runs: Path = Path("runs")) -> None:
    """Start quantising a model that is here, in a process of its own.

    Raises:
        ModelError: it is not here, cannot be quantised to this format, or was already.
    """
    from etude.app.model_work import begin_work

    if kind not in list_models(runs).find(name).quantizable:
        raise ModelError(f"{name} cannot be quantised to {kind}, or has been already")
    begin_work("quantize", name, kind)


def remove_model(name: str, runs: Path = Path("runs")) -> int:
    """Remove a model from this machine; return the bytes freed.

    Raises:
        ModelError: it is not here, a run that is queued or at work uses it, or a process works on
            it.
    """
    from etude.app.model_work import work_folder
    from etude.core.atomic_files import remove_folder

    model = list_models(runs).find(name)
    if model.folder is None:
        raise ModelError(f"{model.title} is not on this machine")
    if busy := [run.name for run in model.runs if run.at_work]:
        raise ModelError(
            f"{model.title} is used by {', '.join(busy)}: stop it, or wait until it has ended"
        )
    if model.work is not None and model.work.condition == "running":
        raise ModelError(f"{model.title} is being worked on: {model.work.step}; stop that first")
    try:
        remove_folder(model.folder)
    except OSError as error:
        raise ModelError(f"cannot remove {model.folder}: {error.strerror or error}") from error
    work_folder().forget(name)
    return model.bytes


def _models_of_runs(base: Path) -> dict[str, list[UsingRun]]:
    """Return the runs that use each model, by the model's name in their recipes."""
    from etude.tuning.runs.folder import list_runs
    from etude.tuning.runs.states import ALIVE

    using: dict[str, list[UsingRun]] = {}
    for run in list_runs(base):
        try:
            found = run.recipe.stat()
        except OSError:
            continue
        if name := _model_of(run.recipe, found.st_mtime_ns):
            using.setdefault(name, []).append(UsingRun(run.name, run.state in ("queued", *ALIVE)))
    return using


@lru_cache(maxsize=4096)
def _model_of(recipe: Path, changed: int) -> str:
    """Return the model that a recipe names; empty if it cannot be read."""
    import yaml

    del changed
    try:
        fields: Any = yaml.safe_load(recipe.read_text("utf-8"))
        return str(fields["model"]["id"])
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return ""


def _json(file: Path) -> dict[str, Any]:
    try:
        content: Any = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return cast("dict[str, Any]", content) if isinstance(content, dict) else {}


def _license(folder: Path) -> str:
    """Return the licence that the front matter of a model's README states."""
    try:
        with (folder / "README.md").open(encoding="utf-8", errors="replace") as stream:
            head = stream.read(4000)
    except OSError:
        return ""
    found = re.search(r"^license:\s*([\w.+-]+)\s*$", head.partition("\n---")[0], re.MULTILINE)
    return found[1] if found else ""


def _size(folder: Path) -> int:
    """Return the bytes of a folder's files; one that has two names counts once."""
    files: Sequence[Path] = [file for file in folder.resolve().rglob("*") if not file.is_dir()]
    return sum(file.lstat().st_size for file in files)
