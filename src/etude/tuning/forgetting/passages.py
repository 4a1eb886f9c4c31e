"""English prose that is on every machine with Python: the language reference, by topic.

`pydoc_data.topics` holds what `help("for")` prints. It is no task's data, so the loss on it says
whether a model still writes English; another text may take its place.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from etude.core.errors import DataError

TOKENS = 256
"""Of a passage."""

PASSAGES = 80
"""At most; a longer text is read from all its parts."""


def topics() -> list[str]:
    """Return the topics of Python's language reference, by name."""
    from pydoc_data.topics import topics as texts  # 0.5 MB of text

    return [text for _, text in sorted(texts.items())]


def read_text(file: Path) -> list[str]:
    """Return the text of a file, in UTF-8.

    Raises:
        DataError: it cannot be read, or is empty.
    """
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read as UTF-8 text: {error}") from error
    if not text.strip():
        raise DataError(f"{file} is empty")
    return [text]


def passages(texts: list[str], tokenizer: Any) -> list[list[int]]:
    """Return the tokens of passages, spread evenly over all texts; a last short one is left out.

    Args:
        texts: documents; no passage crosses from one into another.
        tokenizer: the model's; special tokens are not added.

    Raises:
        DataError: no text is as long as a passage.
    """
    found: list[list[int]] = []
    for text in texts:
        ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        starts = range(0, len(ids) - TOKENS + 1, TOKENS)
        found += [ids[start : start + TOKENS] for start in starts]
    if not found:
        raise DataError(f"the text is shorter than a passage of {TOKENS} tokens")
    count = min(len(found), PASSAGES)
    return [found[index * len(found) // count] for index in range(count)]
