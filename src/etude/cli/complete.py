"""Tab completion: names that exist, found without importing anything heavy."""

from __future__ import annotations

from pathlib import Path


def complete_run(incomplete: str) -> list[str]:
    """Return names of runs in `runs/` that start with what is typed."""
    base = Path("runs")
    names = [p.name for p in base.iterdir() if p.is_dir()] if base.is_dir() else []
    return sorted(name for name in names if name.startswith(incomplete))


def complete_recipe(incomplete: str) -> list[str]:
    """Return shipped recipes, YAML files and folders that start with what is typed."""
    from etude.tuning.config.shipped import shipped_recipes

    names = [name for name in shipped_recipes() if name.startswith(incomplete)]
    head, slash, tail = incomplete.rpartition("/")
    folder = Path((head + slash) or ".")
    for file in sorted(folder.iterdir()) if folder.is_dir() else []:
        if file.name.startswith(tail) and (tail or not file.name.startswith(".")):
            if file.is_dir():
                names.append(f"{head}{slash}{file.name}/")
            elif file.suffix in (".yaml", ".yml"):
                names.append(f"{head}{slash}{file.name}")
    return names


def complete_task(incomplete: str) -> list[str]:
    """Return tasks that start with what is typed."""
    from etude.app.tune import task_names

    return [name for name in ("auto", *task_names()) if name.startswith(incomplete)]


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
