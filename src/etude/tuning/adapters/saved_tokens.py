"""The tokens that an adapter has rows for, by the tokenizer in its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from etude.core.errors import AdapterError
from etude.tuning.adapters.read import SavedAdapter
from etude.tuning.config.sections.model import ModelSpec
from etude.tuning.models.added_tokens import AddedTokens

TOKENIZER = "tokenizer.json"


def with_tokens_of(saved: SavedAdapter, spec: ModelSpec) -> ModelSpec:
    """Return the base model's section with the tokens whose rows the adapter has.

    Tokens of the base's own vocabulary may be among them: they are not added anew. Without a
    tokenizer in the folder, or with tokens named already, the section is as it was.

    Raises:
        AdapterError: the tokenizer's file is damaged.
    """
    file = saved.folder / TOKENIZER
    if spec.adds_tokens or not (saved.options.tokens or saved.modules) or not file.is_file():
        return spec
    numbers = _numbers(file)
    trained = {number for ids in saved.options.tokens.values() for number in ids}
    last = max((number for number, _ in numbers.values()), default=-1)
    weights = (one for tensors in saved.modules.values() for one in tensors.values())
    if any(one.dim() == 2 and len(one) > last for one in weights):
        trained |= {number for number, _ in numbers.values()}  # a matrix of all tokens
    chosen = sorted(
        (number, token, special)
        for token, (number, special) in numbers.items()
        if number in trained
    )
    return spec.model_copy(
        update={
            "add_tokens": [token for _, token, special in chosen if not special],
            "add_special_tokens": [token for _, token, special in chosen if special],
        }
    )


def refuse_other_numbers(folder: Path, added: AddedTokens) -> None:
    """Refuse a base whose added tokens have other numbers than in an adapter's folder.

    Raises:
        AdapterError: a row of the adapter would be that of another token.
    """
    file = folder / TOKENIZER
    if not added.ids or not file.is_file():
        return
    numbers = _numbers(file)
    for token, number in zip(added.tokens, added.ids, strict=True):
        if token in numbers and numbers[token][0] != number:
            raise AdapterError(
                f"{folder}: {token} has the number {numbers[token][0]} there and {number} "
                "here; name the tokens in that order (model.add_tokens, model.add_special_tokens)"
            )


def _numbers(file: Path) -> dict[str, tuple[int, bool]]:
    """Return the number of each added token of a tokenizer's file, and whether it is special."""
    try:
        added: list[dict[str, Any]] = json.loads(file.read_text("utf-8"))["added_tokens"]
        return {str(one["content"]): (int(one["id"]), bool(one["special"])) for one in added}
    except (OSError, ValueError, KeyError, TypeError):
        raise AdapterError(f"{file} is damaged: its added tokens cannot be read") from None
