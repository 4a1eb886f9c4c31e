"""Where a model's name leads: alias, hub id, folder or `.gguf` file, and in what format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from etude.core.errors import ModelError
from etude.tuning.models import hub
from etude.tuning.models.catalog import CATALOG, known_models, unknown_model
from etude.tuning.models.folder import INDEX, SINGLE

Format = Literal["gguf", "safetensors", "ctranslate2"]


@dataclass(frozen=True)
class ModelSource:
    """A model that was found, or that can be fetched."""

    name: str
    """As the person wrote it."""

    kind: Literal["alias", "hub", "folder", "file"]

    path: Path | None
    """The folder, or the `.gguf` file. None: not on this machine, `pull` brings it."""

    format: Format | None
    """None where `path` is."""


def resolve(name: str) -> ModelSource:
    """Find what `name` means; fetches nothing.

    An alias wins over a folder of the same name (write `./name` for the folder), a folder over
    a hub id.

    Raises:
        ModelError: nothing has that name, or what has it is no model that can be read.
    """
    if name in CATALOG:
        model = CATALOG[name]
        if not model.is_pulled():
            return ModelSource(name, "alias", None, None)
        path, form = recognize(model.folder)
        return ModelSource(name, "alias", path, form)
    path = Path(name).expanduser()
    if path.exists():
        found, form = recognize(path)
        return ModelSource(name, "file" if path.is_file() else "folder", found, form)
    if name.endswith(".gguf") or name.startswith((".", "~", "/")) or name.count("/") > 1:
        raise ModelError(f"no model at {path}")
    if hub.is_hub_id(name):
        cached = hub.cached(name)
        if cached is None:
            return ModelSource(name, "hub", None, None)
        found, form = recognize(cached)
        return ModelSource(name, "hub", found, form)
    raise ModelError(
        f"{unknown_model(name, known_models())}; or give a folder, a .gguf file, or a hub "
        "id (owner/name)"
    )


def recognize(path: Path) -> tuple[Path, Format]:
    """Return what to read at `path`, and its format.

    Raises:
        ModelError: it is no model, or one in a format that is refused; the message says which.
    """
    if path.is_file():
        if path.suffix == ".gguf":
            return path, "gguf"
        raise ModelError(f"{path} is no model: expected a folder or a .gguf file")
    if (path / "config.json").exists():
        if (path / SINGLE).exists() or (path / INDEX).exists():
            return path, "safetensors"
        if (path / "model.bin").exists() and (path / "vocabulary.txt").exists():
            return path, "ctranslate2"
        if any(path.glob("pytorch_model*.bin")):
            raise ModelError(
                f"{path} holds pickled weights, which can run code when opened: write it again "
                "as safetensors (`from_pretrained` and `save_pretrained` of transformers do)"
            )
        raise ModelError(f"{path} holds a config.json but no {SINGLE} or {INDEX}")
    files = sorted(path.glob("*.gguf"))
    if len(files) == 1:
        return files[0], "gguf"
    if files:
        names = ", ".join(file.name for file in files[:4])
        raise ModelError(f"{path} holds {len(files)} GGUF files: name one of {names}")
    if (path / "adapter_config.json").exists():
        raise ModelError(
            f"{path} is an adapter, not a model: give its base model here, or merge the two first"
        )
    raise ModelError(f"{path} is no model: it holds neither config.json nor a .gguf file")
