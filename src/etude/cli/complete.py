"""Tab completion: names that exist, found without importing anything heavy."""

from __future__ import annotations

from pathlib import Path


def complete_run(incomplete: str) -> list[str]:
    """Return names of runs in `runs/` that start with what is typed."""
    base = Path("runs")
    names = [p.name for p in base.iterdir() if p.is_dir()] if base.is_dir() else []
    return sorted(name for name in names if name.startswith(incomplete))


def complete_recipe_key(incomplete: str) -> list[str]:
    """Return the recipe's dotted keys that start with what is typed, each with its `=`."""
    from pydantic import BaseModel

    from etude.tuning.config.recipe import Recipe

    keys: list[str] = []
    for section, field in Recipe.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            keys += [f"{section}.{key}=" for key in kind.model_fields]
        else:
            keys.append(f"{section}=")
    return [key for key in keys if key.startswith(incomplete)]
