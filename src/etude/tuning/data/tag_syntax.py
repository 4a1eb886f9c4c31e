"""How tags are written: `O`, or a prefix and the type of an entity, as in `B-PER`."""

from __future__ import annotations

import re

OUTSIDE = "O"

PREFIXED = re.compile(r"([BIESLUM])-(.+)")


def is_tag(text: str) -> bool:
    """Return whether a text is O, or a prefix and a type."""
    return text == OUTSIDE or PREFIXED.fullmatch(text) is not None
