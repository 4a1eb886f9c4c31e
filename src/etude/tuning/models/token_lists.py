"""The tokens that a recipe adds: lists, or files with one token on each line."""

from __future__ import annotations

from pathlib import Path

from etude.core.errors import ModelError
from etude.tuning.config.sections.model import ModelSpec


def wanted_tokens(spec: ModelSpec) -> dict[str, bool]:
    """Return the tokens that a recipe adds, and whether each is special.

    Raises:
        ModelError: their file cannot be read, or a token is named twice.
    """
    found: dict[str, bool] = {}
    for key, special in (("add_tokens", False), ("add_special_tokens", True)):
        value: list[str] | str = getattr(spec, key)
        for token in _lines(value, key) if isinstance(value, str) else value:
            if token in found:
                raise ModelError(f"model.{key}: {token!r} is named twice")
            found[token] = special
    return found


def listed(spec: ModelSpec) -> ModelSpec:
    """Return the section with the tokens themselves for the files that name them.

    Raises:
        ModelError: as `wanted_tokens`.
    """
    if not isinstance(spec.add_tokens, str) and not isinstance(spec.add_special_tokens, str):
        return spec
    tokens = wanted_tokens(spec)
    plain = [token for token, special in tokens.items() if not special]
    special = [token for token, special in tokens.items() if special]
    return spec.model_copy(update={"add_tokens": plain, "add_special_tokens": special})


def _lines(file: str, key: str) -> list[str]:
    try:
        text = Path(file).expanduser().read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ModelError(
            f"model.{key}: cannot read {file}: {reason}; give a file with one token on each line, "
            f'or a list: ["{file}"]'
        ) from None
    tokens = [line for line in text.splitlines() if line.strip()]
    if not tokens:
        raise ModelError(f"model.{key}: {file} contains no token")
    return tokens
