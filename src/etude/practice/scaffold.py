"""Template of a new problem: creates its folder with every file, ready to be edited."""

from __future__ import annotations

import re
import secrets
from pathlib import Path

from etude.core.atomic_files import new_folder
from etude.core.errors import ProblemError
from etude.practice.problem import COLLECTIONS

_FILES = {
    "problem.md": """---
id: {id}
title: {title}
difficulty: easy
tags: [replace me]
signature: "def {name}(values: torch.Tensor) -> torch.Tensor"
edges: ["N = 1"]
---

Say what is wanted and why, then each argument with its shape and type.

Write `{name}`, which takes `values`, a tensor of shape $(N,)$, and returns their squares.

## Example

```python
{name}(torch.tensor([1.0, 2.0]))  # tensor([1., 4.])
```

## Constraints

- $1 \\le N \\le 100$; the type is kept, and `values` is not changed.
""",
    "starter.py": '''import torch


def {name}(values: torch.Tensor) -> torch.Tensor:
    """Return the squares of `values`."""
    raise NotImplementedError
''',
    "solution.py": '''import torch


def {name}(values: torch.Tensor) -> torch.Tensor:
    """Return the squares of `values`."""
    return values * values
''',
    "tests.py": '''"""Tests of {title}."""

import torch

from etude.practice.suite import Rng, Suite

suite = Suite()


@suite.visible("two values")
def two(rng: Rng):
    return (rng.randn(2),)


@suite.hidden("one value", edge="N = 1", note="A single value still has a dimension.")
def one(rng: Rng):
    return (rng.randn(1),)


@suite.hidden("float64", concept="dtypes", note="Keep the type.")
def double(rng: Rng):
    return (rng.randn(5, dtype=torch.float64),)


@suite.generated("any number of values", times=6)
def many(rng: Rng):
    return (rng.randn(rng.integer(2, 101)),)
''',
    "hints.md": """## Where to begin

A nudge: what to think about first.

## What goes wrong

The mistake that most people make here, and how to see it.

## Nearly there

Nearly everything, short of the code.
""",
    "explanation.md": "Replace this by 150 to 400 words that teach: why, and what goes wrong.\n",
    "wrong/in_place.py": """# expect: wrong answer: mutated input
def {name}(values):
    return values.mul_(values.clone())
""",
    "wrong/float32.py": """# expect: wrong answer: dtype
def {name}(values):
    return (values * values).float()
""",
    "wrong/absolute.py": """# expect: wrong answer: values
def {name}(values):
    return values.abs()
""",
}


def new_problem(shelf: Path, collection: str, slug: str, title: str | None = None) -> Path:
    """Create the folder of a new problem and return its path.

    Raises:
        ProblemError: the name is invalid, the collection unknown, or the folder exists.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", slug):
        raise ProblemError(f"{slug!r} is no problem name: use lower-case words joined by hyphens")
    if collection not in COLLECTIONS:
        raise ProblemError(
            f"unknown collection {collection!r}; use one of {', '.join(COLLECTIONS)}"
        )
    folder = shelf / collection / slug
    if folder.exists():
        raise ProblemError(f"{folder} already exists")
    words = {
        "id": secrets.token_hex(4),
        "title": title or slug.replace("-", " ").capitalize(),
        "name": slug.replace("-", "_"),
    }
    with new_folder(folder) as aside:
        for name, text in _FILES.items():
            file = aside / name
            file.parent.mkdir(parents=True, exist_ok=True)
            filled = text
            for key, value in words.items():
                filled = filled.replace("{" + key + "}", value)
            file.write_text(filled, encoding="utf-8")
    return folder
