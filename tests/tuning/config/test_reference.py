"""The reference of recipe keys: complete, up to date, and about keys that do something."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
import yaml

from etude.tuning.config.recipe import Recipe
from etude.tuning.config.reference import EXAMPLE, json_schema, keys, markdown

REPOSITORY = Path(__file__).resolve().parents[3]


def test_the_page_is_what_the_keys_say():
    page = (REPOSITORY / "docs" / "reference" / "recipe.md").read_text("utf-8")
    assert page == markdown(Recipe, EXAMPLE), "run make reference"


def test_the_example_at_its_top_is_a_recipe():
    assert Recipe.parse(yaml.safe_load(EXAMPLE)).data.train == "conversations.jsonl"


@pytest.mark.parametrize("key", keys(Recipe), ids=lambda key: key.name)
def test_every_key_has_a_meaning_and_a_default_that_it_takes(key):
    assert len(key.meaning.split()) >= 3
    assert key.meaning.endswith(".")
    fields: dict = {"data": {"train": "rows.jsonl"}}
    if key.name != "data.train":
        *path, last = key.name.split(".")
        inner = fields
        for part in path:
            inner = inner.setdefault(part, {})
        inner[last] = json.loads(json.dumps(key.default))
        assert Recipe.parse(fields)


def test_every_key_is_read_somewhere():
    engine = REPOSITORY / "src" / "etude"
    read: set[str] = set()
    for file in engine.rglob("*.py"):
        if file.name in ("specs.py", "recipe_reference.py"):
            continue
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Attribute):
                read.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                read.add(node.value)  # columns of `evaluation`, read by name
    unread = [key.name for key in keys(Recipe) if key.name.rpartition(".")[2] not in read]
    assert unread == []


def test_the_schema_knows_every_section_and_takes_a_model_by_name():
    schema = json_schema(Recipe)
    assert set(schema["properties"]) == set(Recipe.model_fields)
    assert {"type": "string"} in schema["properties"]["model"]["anyOf"]
