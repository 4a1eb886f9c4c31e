"""The real tokenizer, and chat templates of the families that behave unlike one another."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def smollm2_tokenizer(smollm2: Path) -> Any:
    """SmolLM2's own tokenizer and chat template, from its GGUF file."""
    from etude.tuning.models.load import open_checkpoint
    from etude.tuning.models.sources import resolve

    with closing(open_checkpoint(resolve(str(smollm2)))) as checkpoint:
        return checkpoint.tokenizer()


@pytest.fixture
def templated(tiny_tokenizer: Any) -> Callable[..., Any]:
    """A factory: the tiny tokenizer with another chat template, or attributes."""

    def make(template: str | None, **attributes: Any) -> Any:
        tokenizer = copy.deepcopy(tiny_tokenizer)
        tokenizer.chat_template = template
        for name, value in attributes.items():
            setattr(tokenizer, name, value)
        return tokenizer

    return make
