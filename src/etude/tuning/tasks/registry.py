"""Task registry. A new task is a file beside this one and a line here."""

from __future__ import annotations

from etude.tuning.tasks.base import Task
from etude.tuning.tasks.chat import Chat
from etude.tuning.tasks.embedding import Embedding
from etude.tuning.tasks.image_classification import ImageClassification
from etude.tuning.tasks.language_modeling import LanguageModeling
from etude.tuning.tasks.reranking import Reranking
from etude.tuning.tasks.text_classification import TextClassification
from etude.tuning.tasks.token_classification import TokenTagging

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Chat(),
        LanguageModeling(),
        TextClassification(),
        TokenTagging(),
        ImageClassification(),
        Embedding(),
        Reranking(),
    )
}


def task_named(name: str) -> Task:
    """Return a task by its name in the recipe."""
    return TASKS[name]
