"""Token cache: encoded training data, stored under a hash of their inputs.

The key is a hash of every sample, the tokenizer with its template, the recipe's encoding settings
and the encoding code, so a change of any of these invalidates the entry. The least recently used
entries are evicted when the total exceeds `MOST_BYTES`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from etude.core.paths import home
from etude.core.progress import Progress
from etude.tuning.data import (
    chat_template,
    counts,
    encode,
    encoded,
    loss_mask,
    plain_layout,
    rendering,
    template_probe,
    token_files,
)
from etude.tuning.data.encode import Encoder
from etude.tuning.data.encoded import EncodedSet
from etude.tuning.data.schema import Sample
from etude.tuning.data.token_files import StoreWriter, TokenStore

MOST_BYTES = 4 << 30
_CODE = (
    counts,
    encode,
    encoded,
    loss_mask,
    chat_template,
    plain_layout,
    rendering,
    template_probe,
    token_files,
)


def _code_hash() -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for module in _CODE:
        digest.update(Path(str(module.__file__)).read_bytes())
    return digest.digest()


# Computed at import: a file edited while the process runs is not the code that runs.
_CODE_HASH = _code_hash()


def tokens_folder() -> Path:
    """Return the folder of the token cache."""
    return home() / "tokens"


def encode_cached(
    encoder: Encoder,
    samples: Sequence[Sample],
    progress: Progress,
    say: Callable[[str], None],
    folder: Path | None = None,
) -> EncodedSet:
    """Encode training samples into a store, or return the cached one.

    Args:
        encoder: encoder of the model and recipe.
        samples: training samples.
        progress: reports each encoded batch.
        say: receives a message if the cache was used or could not be written.
        folder: directory of the stores; default: Etude's own.

    Raises:
        DataError: as `Encoder.encode_all`.
    """
    name = cache_key(encoder, samples)
    if name is None:
        return encoder.encode_all(samples, progress)
    place = (folder or tokens_folder()) / name
    try:
        found = TokenStore(place)
        os.utime(place)
    except (OSError, ValueError, KeyError, TypeError):
        found = None
    if found is not None:
        progress.advance(len(samples))
        say(f"using cached tokens of {len(found):,} training samples")
        return EncodedSet(_as_needed(found), [], found.stats)
    try:
        writer = StoreWriter(place)
    except OSError as error:
        say(f"cannot cache tokens: {error.strerror} ({place.parent})")
        return encoder.encode_all(samples, progress)
    try:
        stats = encoder.encode_each(samples, writer.add, progress)
        made = writer.finish(stats)
    except OSError as error:
        say(f"cannot cache tokens: {error.strerror} ({place.parent})")
        return encoder.encode_all(samples, progress)
    finally:
        writer.close()
    evict(place.parent, keep=place)
    return EncodedSet(_as_needed(made), [], made.stats)


def _as_needed(found: TokenStore) -> Sequence[encoded.EncodedSample]:
    """Return samples as a list, for objectives that compare them by identity."""
    compared = found.stats.pairs or found.stats.desirable or found.stats.undesirable
    return list(found) if compared else found


def cache_key(encoder: Encoder, samples: Sequence[Sample]) -> str | None:
    """Return the cache key of `samples` for `encoder`; None if they cannot be cached."""
    backend = getattr(encoder.tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None  # a tokenizer in Python may depend on anything
    template = str(encoder.tokenizer.chat_template)
    spec = encoder.spec
    about: dict[str, Any] = {
        "versions": [version(name) for name in ("tokenizers", "transformers")],
        "template": template,
        # A template may include the current date.
        "day": date.today().isoformat() if "strftime_now" in template else "",
        "special": {key: str(value) for key, value in encoder.tokenizer.special_tokens_map.items()},
        "spec": [
            spec.max_length,
            spec.too_long,
            spec.no_trained_tokens,
            spec.template_refused,
            spec.unsupported_system,
            spec.trained_turns,
        ],
    }
    digest = hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=16)
    digest.update(backend.to_str().encode("utf-8", "surrogatepass"))
    digest.update(_CODE_HASH)
    for sample in samples:
        digest.update(repr(sample).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def evict(folder: Path, keep: Path, most: int = MOST_BYTES) -> None:
    """Evict least recently used stores until the total is at most `most` bytes."""
    sizes: list[tuple[float, int, Path]] = []
    for place in folder.iterdir():
        try:
            size = sum(file.stat().st_size for file in place.iterdir())
            sizes.append((place.stat().st_mtime, size, place))
        except OSError:
            continue  # in use by another run
    total = sum(size for _, size, _ in sizes)
    for _, size, place in sorted(sizes):
        if total <= most:
            return
        if place != keep:
            shutil.rmtree(place, ignore_errors=True)
            total -= size
