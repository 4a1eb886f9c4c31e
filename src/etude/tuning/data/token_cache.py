"""Tokens of training data are made once: kept under a name that says what they were made of.

The name is a hash of every sample, of the tokenizer with its template, of what the recipe says of
encoding and of the code that encodes. Where any of these changes, so does the name, and nothing
old can be taken for new. The least recently used go when all together exceed `MOST_BYTES`.
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
from etude.tuning.data import chat_template, counts, encode, encoded, loss_mask, token_files
from etude.tuning.data.encode import Encoder
from etude.tuning.data.encoded import EncodedSet
from etude.tuning.data.schema import Sample
from etude.tuning.data.token_files import StoreWriter, TokenStore

MOST_BYTES = 4 << 30
_CODE = (counts, encode, encoded, loss_mask, chat_template, token_files)


def _code_hash() -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for module in _CODE:
        digest.update(Path(str(module.__file__)).read_bytes())
    return digest.digest()


# Of the code as it was loaded: a file that is edited while a process runs is not what it runs.
_CODE_HASH = _code_hash()


def tokens_folder() -> Path:
    """Return the folder of kept tokens."""
    return home() / "tokens"


def encode_cached(
    encoder: Encoder,
    samples: Sequence[Sample],
    progress: Progress,
    say: Callable[[str], None],
    folder: Path | None = None,
) -> EncodedSet:
    """Encode training samples into a store, or take the one that was kept.

    Args:
        encoder: of the model and recipe.
        samples: to train on.
        progress: told of each batch that is encoded.
        say: told in one line where tokens were kept, or could not be.
        folder: where stores are; Etude's own unless given.

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
        say(f"the tokens of {len(found):,} training samples were kept from an earlier run")
        return EncodedSet(_as_needed(found), [], found.stats)
    try:
        writer = StoreWriter(place)
    except OSError as error:
        say(f"tokens cannot be kept: {error.strerror} ({place.parent})")
        return encoder.encode_all(samples, progress)
    try:
        stats = encoder.encode_each(samples, writer.add, progress)
        made = writer.finish(stats)
    except OSError as error:
        say(f"tokens cannot be kept: {error.strerror} ({place.parent})")
        return encoder.encode_all(samples, progress)
    finally:
        writer.close()
    evict(place.parent, keep=place)
    return EncodedSet(_as_needed(made), [], made.stats)


def _as_needed(found: TokenStore) -> Sequence[encoded.EncodedSample]:
    """Return samples that are compared with others as objects that stay the same."""
    compared = found.stats.pairs or found.stats.desirable or found.stats.undesirable
    return list(found) if compared else found


def cache_key(encoder: Encoder, samples: Sequence[Sample]) -> str | None:
    """Return the name of what `encoder` makes of `samples`; None where it cannot be told."""
    backend = getattr(encoder.tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None  # a tokenizer in Python may depend on anything
    template = str(encoder.tokenizer.chat_template)
    spec = encoder.spec
    about: dict[str, Any] = {
        "versions": [version(name) for name in ("tokenizers", "transformers")],
        "template": template,
        # A template may write the date into its prompts.
        "day": date.today().isoformat() if "strftime_now" in template else "",
        "special": {key: str(value) for key, value in encoder.tokenizer.special_tokens_map.items()},
        "spec": [spec.max_length, spec.too_long, spec.no_trained_tokens, spec.trained_turns],
    }
    digest = hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=16)
    digest.update(backend.to_str().encode("utf-8", "surrogatepass"))
    digest.update(_CODE_HASH)
    for sample in samples:
        digest.update(repr(sample).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def evict(folder: Path, keep: Path, most: int = MOST_BYTES) -> None:
    """Remove the stores used longest ago until all together have at most `most` bytes."""
    sizes: list[tuple[float, int, Path]] = []
    for place in folder.iterdir():
        try:
            size = sum(file.stat().st_size for file in place.iterdir())
            sizes.append((place.stat().st_mtime, size, place))
        except OSError:
            continue  # another run is at it
    total = sum(size for _, size, _ in sizes)
    for _, size, place in sorted(sizes):
        if total <= most:
            return
        if place != keep:
            shutil.rmtree(place, ignore_errors=True)
            total -= size
