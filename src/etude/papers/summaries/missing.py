"""Fills in missing and outdated summaries of a library.

Papers are processed newest first, in batches that are stored when done, so an interrupted run
resumes. A line is stored only if the paper still has the title and abstract that it was made of.

`how` of a summary is one of

    extract:1             a sentence, chosen by version 1 of the ranking model
    extract-cut:1         the same, cut at a clause
    notice:1              the notice of withdrawal
    none:1                an empty text: the abstract has no usable sentence
    model:<name>          written by a model, accepted by the guard
    extract:1!number:<name>   extracted, since the model's line had an invented number
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, not_, or_, select

from etude.papers.summaries.extractive import (
    CUT_SHORT,
    NOTHING,
    NOTICE,
    VERSION,
    WHOLE,
    Summary,
    extract,
)
from etude.papers.summaries.guard import Guard, tidied
from etude.papers.summaries.origin import MODEL
from etude.store.papers import Paper

if TYPE_CHECKING:
    from etude.papers.library import Library
    from etude.papers.summaries.writers import Writer

BATCH: Final = 200
LONGEST_HOW: Final = 120
"""Maximum characters of `how` in the database."""


def write(papers: Sequence[tuple[str, str]], writer: Writer) -> list[Summary]:
    """Return summaries by `writer`; if it fails or the guard rejects one, the extracted sentence.

    Args:
        papers: titles and abstracts in source form.
        writer: receives the whole batch at once.
    """
    extracted = extract(papers)
    # Notices of withdrawal are quoted, and empty abstracts give nothing to summarise.
    asked = [n for n, own in enumerate(extracted) if own.how not in (NOTICE, NOTHING)]
    answers = dict(zip(asked, writer([papers[n] for n in asked]), strict=True)) if asked else {}
    return [
        _checked(paper, own, answers[n], writer.name) if n in answers else own
        for n, (paper, own) in enumerate(zip(papers, extracted, strict=True))
    ]


def _checked(paper: tuple[str, str], own: Summary, answer: str | None, name: str) -> Summary:
    if answer is None:
        return Summary(own.text, f"{own.how}!unreachable:{name}"[:LONGEST_HOW])
    line = tidied(answer)
    faults = Guard(*paper).faults(line)
    if faults:
        return Summary(own.text, f"{own.how}!{faults[0].kind}:{name}"[:LONGEST_HOW])
    return Summary(line, f"{MODEL}{name}"[:LONGEST_HOW])


def summarise_missing(
    library: Library,
    *,
    limit: int | None = None,
    writer: Writer | None = None,
    show: Callable[[int, int], None] | None = None,
) -> int:
    """Make missing and outdated summaries, and return the number stored.

    Without a writer: for papers without a summary, or with one by an earlier version of the ranking
    model; models' lines are unchanged. With a writer: for all papers that it has not processed yet,
    or for which it was unreachable.

    Args:
        library: the papers.
        limit: maximum number of papers, newest first.
        writer: language model; None to extract sentences.
        show: called with the number done and the total.
    """
    wanted = _wanted(writer)
    with library.engine.connect() as connection:
        numbers = list(
            connection.execute(
                select(Paper.number).where(wanted).order_by(Paper.number.desc()).limit(limit)
            ).scalars()
        )
    size = BATCH if writer is None else writer.batch
    stored = 0
    for start in range(0, len(numbers), size):
        with library.engine.connect() as connection:
            rows = connection.execute(
                select(Paper.id, Paper.title, Paper.abstract)
                .where(Paper.number.in_(numbers[start : start + size]))
                .order_by(Paper.number.desc())
            ).all()
        pairs = [(row.title, row.abstract) for row in rows]
        made = extract(pairs) if writer is None else write(pairs, writer)
        library.set_summaries(
            [(row.id, summary.text, summary.how) for row, summary in zip(rows, made, strict=True)],
            made_of={row.id: (row.title, row.abstract) for row in rows},
        )
        stored += len(rows)
        if show is not None:
            show(min(start + size, len(numbers)), len(numbers))
    return stored


def _wanted(writer: Writer | None) -> Any:
    if writer is None:
        current = [Paper.summary_by.startswith(how, autoescape=True) for how in _current()]
        model = Paper.summary_by.startswith(MODEL, autoescape=True)
        return or_(Paper.summary_by.is_(None), not_(or_(model, *current)))
    # Retry papers for which the model was unreachable, but not rejected lines.
    own = f"{MODEL}{writer.name}"[:LONGEST_HOW]
    asked = and_(
        Paper.summary_by.contains("!"),
        Paper.summary_by.endswith(f":{writer.name}"[:LONGEST_HOW], autoescape=True),
        not_(Paper.summary_by.contains("!unreachable:")),
    )
    never = Paper.summary_by.in_([own, NOTICE, NOTHING])
    return or_(Paper.summary_by.is_(None), not_(or_(asked, never)))


def _current() -> list[str]:
    return [WHOLE, CUT_SHORT, NOTICE, NOTHING]


__all__ = ["VERSION", "summarise_missing", "write"]
