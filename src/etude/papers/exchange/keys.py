"""Citation keys: `vaswani-1706.03762`.

The id makes a key unique in every file, and identical in every export. A counting letter, or a word
of a title that its authors may change, would break documents that cite it. The name is for human
readers.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from etude.papers.exchange.names import split_name

# Letters that Unicode does not decompose into a letter and a mark.
_PLAIN = str.maketrans(
    {"ł": "l", "ø": "o", "đ": "d", "ð": "d", "þ": "th", "ß": "ss", "æ": "ae", "œ": "oe", "ı": "i"}
)
_LONGEST = 24


def citation_key(row: dict[str, Any]) -> str:
    """Return the key of a row: ASCII letters, digits, `-` and `.`, accepted everywhere."""
    name = split_name(row["authors"][0]) if row["authors"] else None
    family = name.family or name.literal if name is not None else ""
    split = unicodedata.normalize("NFKD", family.casefold().translate(_PLAIN))
    word = re.sub(r"[^a-z0-9]", "", split)[:_LONGEST]
    return f"{word or 'arxiv'}-{row['id'].replace('/', '-')}"
