"""Hugging Face Hub models, stored in the hub client's own cache.

The cache is shared with all other programs that use the hub client, so a model that transformers
has downloaded is not downloaded again.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from etude.core.errors import ModelError, innermost_reason
from etude.core.progress import Progress
from etude.tuning.models.catalog import CATALOG, known_models, unknown_model

# Files of a transformers model folder. Excluded: pickled weights, exports to other engines (in
# sub-folders), and Mistral's second copy of the same weights.
_WANTED = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model", "README.md", "LICENSE*"]
_UNWANTED = ["*/*", "consolidated*"]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]*[A-Za-z0-9_]")


def is_hub_id(name: str) -> bool:
    """Return whether `name` has the form `owner/name`."""
    return _HUB_ID.fullmatch(name) is not None and ".." not in name and "--" not in name


def cached_folders() -> list[tuple[str, Path, Path]]:
    """Return (name, folder in the cache, folder of its newest snapshot) of each hub model here.

    It reads folders alone, as the hub client takes long to import.
    """
    hub = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    home = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    base = Path(hub) if hub else Path(home).expanduser() / "hub"
    found: list[tuple[str, Path, Path]] = []
    for folder in sorted(base.glob("models--*--*")):
        _, owner, name = folder.name.split("--", 2)
        snapshots = [one for one in folder.glob("snapshots/*") if (one / "config.json").is_file()]
        if snapshots and is_hub_id(f"{owner}/{name}"):
            newest = max(snapshots, key=lambda one: one.stat().st_mtime)
            found.append((f"{owner}/{name}", folder, newest))
    return found


def cached(name: str) -> Path | None:
    """Return the local folder of the hub model `name`, if complete."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return _snapshot(name, local_files_only=True)
    except LocalEntryNotFoundError:
        return None


def download(name: str, progress: Progress) -> Path:
    """Download or update the hub model `name` and return its folder.

    Without a network, a complete copy in the cache is used.

    Raises:
        ModelError: the model does not exist, is not accessible, or the hub cannot be reached.
    """
    if not is_hub_id(name):
        raise ModelError(f"{unknown_model(name, known_models())}; or use a hub id (owner/name)")
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    progress.start(f"Downloading {name}", None, "B")
    try:
        folder = _snapshot(name, tqdm_class=_reporting_to(progress))
    except GatedRepoError:
        raise ModelError(
            f"{name} is gated: accept its terms on its hub page, then log in with `hf auth login`"
        ) from None
    except RepositoryNotFoundError:
        raise ModelError(
            f"the hub has no model {name}, or it is private: check the name, "
            "or log in with `hf auth login`"
        ) from None
    except LocalEntryNotFoundError as error:
        raise ModelError(
            f"cannot reach the Hugging Face hub for {name} ({innermost_reason(error)}): "
            "connect to the network, set "
            f"HF_ENDPOINT to a mirror, or use a folder; aliases such as {next(iter(CATALOG))} "
            "come from the package index instead"
        ) from None
    except Exception as error:
        # The client does not wrap errors of its HTTP library, which differs between versions; any
        # of them means that the download failed.
        raise ModelError(
            f"could not download {name} from the hub: {innermost_reason(error)}"
        ) from error
    progress.finish()
    return folder


def _snapshot(name: str, **options: Any) -> Path:
    """Call the hub client, whose signature is only partly typed."""
    import huggingface_hub

    client: Any = huggingface_hub
    return Path(
        client.snapshot_download(name, allow_patterns=_WANTED, ignore_patterns=_UNWANTED, **options)
    )


def _reporting_to(progress: Progress) -> Any:
    """Return a tqdm class, which is what the hub client takes, that reports to `progress`."""
    from tqdm.auto import tqdm

    base: Any = tqdm

    shown = 0

    class Reporting(base):
        """Progress bar without output; forwards the largest byte count."""

        def __init__(self, *args: Any, **options: Any) -> None:
            # The client passes an extra keyword, the name of the bar's group.
            options.pop("name", None)
            base.__init__(self, *args, **options)

        def display(self, *_: Any, **__: Any) -> bool:
            nonlocal shown
            if self.unit == "B" and self.n > shown:
                progress.advance(int(self.n) - shown)
                shown = int(self.n)
            return True

    return Reporting
