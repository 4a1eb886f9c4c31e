"""Models of the Hugging Face hub, kept in the hub client's own cache.

The cache is shared with every other tool on the machine that uses the hub client, so a model that
transformers has fetched before is not fetched again.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from etude.core.errors import ModelError, innermost_reason
from etude.core.progress import Progress
from etude.tuning.models.catalog import CATALOG, unknown_model

# What a transformers model folder consists of. Not: pickled weights, exports to other engines
# (in sub-folders), and Mistral's second copy of the same weights.
_WANTED = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model", "README.md", "LICENSE*"]
_UNWANTED = ["*/*", "consolidated*"]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]*[A-Za-z0-9_]")


def is_hub_id(name: str) -> bool:
    """Tell whether `name` has the form `owner/name`."""
    return _HUB_ID.fullmatch(name) is not None and ".." not in name and "--" not in name


def cached(name: str) -> Path | None:
    """Return the folder of the hub model `name` if it is on this machine, whole."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return _snapshot(name, local_files_only=True)
    except LocalEntryNotFoundError:
        return None


def download(name: str, progress: Progress) -> Path:
    """Fetch the hub model `name`, or what has changed of it, and return its folder.

    Without a network, a whole copy in the cache is enough.

    Raises:
        ModelError: no such model, no right to it, or no way to reach the hub.
    """
    if not is_hub_id(name):
        raise ModelError(f"{unknown_model(name, CATALOG)}; or give a hub id (owner/name)")
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
            "go online, set "
            f"HF_ENDPOINT to a mirror, or give a folder; aliases such as {next(iter(CATALOG))} "
            "come from the package index instead"
        ) from None
    except Exception as error:
        # The client lets its HTTP library's errors through, and which library that is changes
        # between its versions; any of them means that the download did not succeed.
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
        """Draws nothing; forwards the bars that count bytes, of which the furthest counts."""

        def __init__(self, *args: Any, **options: Any) -> None:
            # The client adds a keyword of its own, the name of the bar's group.
            options.pop("name", None)
            base.__init__(self, *args, **options)

        def display(self, *_: Any, **__: Any) -> bool:
            nonlocal shown
            if self.unit == "B" and self.n > shown:
                progress.advance(int(self.n) - shown)
                shown = int(self.n)
            return True

    return Reporting
