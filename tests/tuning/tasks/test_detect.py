"""`task: auto`: which task data are for, and which columns hold what."""

from __future__ import annotations

import json

import pytest

from etude.core.errors import DataError
from etude.tuning.config.recipe import Recipe
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.sources.registry import Row
from etude.tuning.tasks.detect import detect, find_columns, resolved

FILMS = ("a fine film", "a dreadful film", "such wooden acting", "a joy to watch", "too long")


def rows(*names, count=40):
    """Return rows with columns of the given kinds: name=kind."""
    made = {
        "words": lambda i: f"{FILMS[i % 5]}, number {i}",
        "class": lambda i: ("good", "bad", "mixed")[i % 3],
        "stars": lambda i: 1 + i % 5,
        "id": lambda i: f"id-{i}",
        "messages": lambda i: [{"role": "user", "content": f"hello {i}"}],
        "tokens": lambda i: ["one", "two"],
        "tags": lambda i: ["O", "B-thing"],
    }
    return [
        Row(f"rows:{i + 1}", {name: made[kind](i) for name, kind in names}) for i in range(count)
    ]


@pytest.mark.parametrize(
    ("columns", "task", "settings"),
    [
        ([("text", "words"), ("label", "class")], "text-classification", {}),
        (
            [("review", "words"), ("stars", "stars")],
            "text-classification",
            {"text": "review", "label": "stars"},
        ),
        (
            [("number", "id"), ("verdict", "class"), ("remark", "words")],
            "text-classification",
            {"text": "remark", "label": "verdict"},
        ),
        ([("messages", "messages")], "chat", {}),
        ([("prompt", "words"), ("completion", "words")], "chat", {}),
        (
            [("question", "words"), ("answer", "words")],
            "chat",
            {"prompt": "question", "completion": "answer"},
        ),
        ([("tokens", "tokens"), ("ner_tags", "tags")], "token-classification", {}),
        ([("anchor", "words"), ("positive", "words")], "embedding", {"text": "anchor"}),
        ([("text", "words")], "language-modeling", {}),
        ([("page", "words"), ("key", "id")], "language-modeling", {"text": "page"}),
    ],
)
def test_the_task_is_read_from_the_columns(columns, task, settings):
    found = detect(rows(*columns), DataSpec())
    assert found.task == task
    assert settings.items() <= found.columns.items()
    assert task in found.reason


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ([("a", "id"), ("b", "id")], "the task cannot be read from the columns 'a', 'b'"),
        (
            [("text", "words"), ("class", "class"), ("topic", "class")],
            r"several columns may be the label \('class', 'topic'\); name it by --label-column",
        ),
        (
            [("title", "words"), ("story", "words"), ("label", "class")],
            r"several columns may be the text \('title', 'story'\); name it by --text-column",
        ),
    ],
)
def test_an_ambiguous_choice_is_an_error_that_names_columns_and_options(columns, said):
    with pytest.raises(DataError, match=said):
        detect(rows(*columns), DataSpec())


def test_columns_that_the_recipe_names_are_used():
    several = rows(("text", "words"), ("class", "class"), ("topic", "class"))
    assert detect(several, DataSpec(label="topic")).task == "text-classification"
    assert find_columns("text-classification", several, DataSpec(label="topic")) is None
    # A name that is not there is the row reader's error, which has near names.
    assert find_columns("text-classification", several, DataSpec(label="topics")) is None


def test_a_known_task_finds_only_its_columns():
    reviews = rows(("review", "words"), ("stars", "stars"))
    found = find_columns("text-classification", reviews, DataSpec())
    assert found is not None
    assert found.columns == {"text": "review", "label": "stars"}
    assert "5 different values" in found.reason
    plain = rows(("text", "words"), ("label", "class"))
    assert find_columns("text-classification", plain, DataSpec()) is None
    assert find_columns("embedding", plain, DataSpec()) is None


def test_a_recipe_is_resolved_once_and_says_why(tmp_path):
    file = tmp_path / "rows.jsonl"
    lines = [json.dumps(row.values) for row in rows(("review", "words"), ("stars", "stars"))]
    file.write_text("\n".join(lines), "utf-8")
    recipe, notes = resolved(Recipe.parse({"task": "auto", "data": {"train": str(file)}}))
    assert recipe.task == "text-classification"
    assert (recipe.data.text, recipe.data.label) == ("review", "stars")
    assert notes == [
        "task: text-classification, from texts and labels in columns 'review' and 'stars' "
        "(5 different values)"
    ]
    assert resolved(recipe) == (recipe, [])


def test_functions_and_docstrings_are_for_chat():
    recipe, notes = resolved(Recipe.parse({"task": "auto", "data": {"kind": "docstrings"}}))
    assert (recipe.task, notes) == ("chat", [])
