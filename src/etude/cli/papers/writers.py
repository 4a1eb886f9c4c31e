"""Models that write summaries: the extractive one that Etude ships with, or one that is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from etude.core.errors import PapersError

if TYPE_CHECKING:
    from etude.papers.library import Library
    from etude.papers.summaries.writers import Writer


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
    from etude.app.papers.writers import at_least_as_good, engine_writer
    from etude.tuning.runs.folder import find_run

    if only_if_better and not at_least_as_good(find_run(run, Path("runs")).path):
        say(
            f"{run}: no figures that say it is as good as a sentence of the abstract "
            "(benchmarks/summaries.py makes them), which is taken; `--by engine` takes the model"
        )
        return None
    return engine_writer(run)


def summarise(
    library: Library, writer: Writer | None, limit: int | None, say: Callable[[str], None]
) -> int:
    """Make what is missing and return how many summaries were stored."""
    from etude.papers.summaries import summarise_missing

    return summarise_missing(
        library,
        limit=limit,
        writer=writer,
        show=lambda done, total: say(f"making summaries: {done:,} of {total:,}"),
    )
