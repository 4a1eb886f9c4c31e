"""The tokens that an adapter has rows for, by the tokenizer in its folder."""

from __future__ import annotations

import json
from typing import Any

from etude.core.errors import AdapterError
from etude.tuning.adapters.read import SavedAdapter
from etude.tuning.config.sections.model import ModelSpec

TOKENIZER = "tokenizer.json"


def with_tokens_of(saved: SavedAdapter, spec: ModelSpec) -> ModelSpec:
    """Return the base model's section with the tokens whose rows the adapter has trained.

    Tokens of the base's own vocabulary may be among them: they are not added anew. Without a
    tokenizer in the folder, or with tokens named already, the section is as it was.

    Raises:
        AdapterError: the tokenizer's file is damaged.
    """
    trained = {number for ids in saved.options.tokens.values() for number in ids}
    file = saved.folder / TOKENIZER
    if spec.adds_tokens or not trained or not file.is_file():
        return spec
    try:
        added: list[dict[str, Any]] = json.loads(file.read_text("utf-8"))["added_tokens"]
        tokens = sorted(
            (int(one["id"]), str(one["content"]), bool(one["special"]))
            for one in added
            if one["id"] in trained
        )
    except (OSError, ValueError, KeyError, TypeError):
        raise AdapterError(f"{file} is damaged: its added tokens cannot be read") from None
    marks = [special for _, _, special in tokens]
    if marks != sorted(marks):
        raise AdapterError(
            f"{file}: special tokens were added before others, which a recipe cannot repeat; add "
            "all of them by model.add_special_tokens, in the order of their numbers"
        )
    return spec.model_copy(
        update={
            "add_tokens": [content for _, content, special in tokens if not special],
            "add_special_tokens": [content for _, content, special in tokens if special],
        }
    )
