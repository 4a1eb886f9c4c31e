"""Suggestions for unknown recipe keys, from the same section or others."""

from __future__ import annotations

from difflib import SequenceMatcher

from pydantic import BaseModel

from etude.tuning.config import reference

_OWN, _OTHER = 0.4, 0.6
"""Minimum similarity ratio of a suggestion from the same section, and from another."""


def suggest(path: str, root: type[BaseModel]) -> str:
    """Return ` (did you mean 'adapter.rank'?)`, or the section's keys if none is near.

    A key with the right name in another section comes first, then the most similar one, those of
    the same section before others.

    Args:
        path: the dotted key as the user wrote it.
        root: the recipe's model.
    """
    section, _, last = path.rpartition(".")
    parts = list(reference.parts(root))
    own = [part.name for part in parts if part.name.rpartition(".")[0] == section and part.name]
    own += [key.name for part in parts if part.name == section for key in part.keys]
    every = [key.name for part in parts for key in part.keys]
    same = [name for name in every if _last(name) == last]
    if same:
        return f" (did you mean {' or '.join(map(repr, same))}?)"
    scores = [(_alike(last, _last(name)), name) for name in own]
    scores += [
        (score, name)
        for name in every
        if name not in own and (score := _alike(last, _last(name))) >= _OTHER
    ]
    score, best = max(scores, key=lambda scored: scored[0], default=(0.0, ""))
    if score >= _OWN:
        return f" (did you mean {best!r}?)"
    return f" (known: {', '.join(map(_last, own or every))})"


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _alike(one: str, other: str) -> float:
    return SequenceMatcher(None, one, other).ratio()
