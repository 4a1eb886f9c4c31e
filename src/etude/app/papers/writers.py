"""Models that write summaries: one that Etude tuned, or the one at ETUDE_LLM_URL.

Etude's own joins the engine to the reading room, from above both.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etude.core.errors import PapersError
from etude.papers.latex_text import latex_to_text
from etude.papers.summaries.extractive import gists

if TYPE_CHECKING:
    from etude.core.progress import Progress
    from etude.papers.summaries.writers import Writer
    from etude.tuning.predictor import Predictor

MOST_TOKENS = 48
FIGURES = "summaries.json"
"""In a run's folder: its ROUGE beside that of extracted sentences (benchmarks/summaries.py)."""


@dataclass
class EngineWriter:
    """A tuned model as `etude.papers.summaries.writers.Writer`."""

    tuned: Predictor
    name: str
    batch: int = 16

    def __call__(self, papers: Sequence[tuple[str, str]], /) -> list[str | None]:
        """Return a line for each paper, written from its title and gist, as in training."""
        from etude.tuning.data.schema import Message
        from etude.tuning.tasks.chat import as_trained
        from etude.tuning.training.evaluate import generate_answers

        encoder, loaded = self.tuned.encoder, self.tuned.loaded
        prompts = [
            encoder.prompt_ids(as_trained((Message("user", text),), encoder.spec, "a paper"))
            for text in asked(papers)
        ]
        answers = generate_answers(
            loaded.model,
            loaded.tokenizer,
            prompts,
            encoder.end_id,
            max_new_tokens=MOST_TOKENS,
            batch_samples=self.batch,
        )
        return list(answers)


def asked(papers: Sequence[tuple[str, str]]) -> list[str]:
    """Return what the model is asked, as recipes/paper-summaries.yaml puts it."""
    return [
        f"{latex_to_text(title)}\n\n{gist}"
        for (title, _), gist in zip(papers, gists(papers), strict=True)
    ]


def engine_writer(
    run: str, *, base: str | Path = "runs", progress: Progress | None = None
) -> EngineWriter:
    """Return a writer that asks the model which a run of recipes/paper-summaries.yaml tuned.

    Args:
        run: `latest`, a run's name, or its folder.
        base: the folder that runs are kept in.
        progress: told of the loading.

    Raises:
        EtudeError: there is no such run, or it has no adapter.
    """
    from etude.tuning.config.recipe import Recipe
    from etude.tuning.predictor import load
    from etude.tuning.runs.folder import find_run

    folder = find_run(run, base)
    recipe = Recipe.read_run(folder.recipe)
    return EngineWriter(
        load(folder, progress=progress), f"{Path(recipe.model.id).name}+{folder.path.name}"
    )


def at_least_as_good(run: Path) -> bool:
    """Say whether a run's recorded summaries are no worse than the extracted sentences.

    False where nothing was recorded: a model is preferred by figures only, or by a person.
    """
    try:
        figures: Any = json.loads((run / FIGURES).read_text("utf-8"))
        ours, model = figures["default"], figures["guarded"]
        return all(float(model[name]) >= float(ours[name]) for name in ("rouge1", "rougeL"))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def address_writer() -> Writer:
    """Return the model that the environment names.

    Raises:
        PapersError: it names none.
        ChatError: a variable has a value that cannot be used.
    """
    from etude.core.chat_client import ChatEndpoint
    from etude.papers.summaries.writers import AddressWriter

    endpoint = ChatEndpoint.from_environment()
    if endpoint is None:
        raise PapersError(
            "set ETUDE_LLM_URL and ETUDE_LLM_MODEL, such as http://localhost:11434/v1 and qwen3:8b"
        )
    return AddressWriter(endpoint)


def tuned_writer(run: str, say: Callable[[str], None], *, only_if_better: bool) -> Writer | None:
    """Return the model that a run tuned; None where its figures are below the default's.

    Args:
        run: `latest`, a run's name, or its folder.
        say: called with one line if the model is not used.
        only_if_better: take it only where its recorded ROUGE is no worse than the extracted
            sentence's.
    """
    from etude.tuning.runs.folder import find_run

    if only_if_better and not at_least_as_good(find_run(run, Path("runs")).path):
        say(
            f"{run}: no figures that say it is as good as a sentence of the abstract "
            "(benchmarks/summaries.py makes them), which is taken; `--by engine` takes the model"
        )
        return None
    return engine_writer(run)
