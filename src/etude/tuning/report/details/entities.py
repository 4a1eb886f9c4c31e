"""Results of taggers in the report: scores and errors by type, confused types, sentences."""

from __future__ import annotations

from typing import Any

from etude.core import units as q
from etude.tuning.report.blocks import Block, Cell, Heatmap, Marked, MarkedText, MarkedTexts, Table
from etude.tuning.report.details.classification import LARGEST, NUMBERED

OUTCOME_NAMES = {
    "right": "right",
    "boundary": "wrong boundary",
    "type": "wrong type",
    "both": "both wrong",
    "missing": "missing",
    "spurious": "spurious",
}
_NOTHING = "nothing"


def entity_results(content: dict[str, Any]) -> list[Block]:
    """Draw a tagger's results.

    Args:
        content: `types` (scores by type), `outcomes` (counts by type and outcome), `confusions`
            ([true type, predicted type, count], an empty type for none), `worst` (sentences, their
            words and marks), `sentences` and `sentences_wrong`.
    """
    types: dict[str, Any] = content["types"]
    if not types:
        return []
    blocks: list[Block] = [_scores(types), _outcomes(content["outcomes"])]
    if 1 < len(types) <= LARGEST:
        blocks.append(_confusions(list(types), content["confusions"]))
    if content["worst"]:
        blocks.append(_sentences(content))
    return blocks


def _scores(types: dict[str, Any]) -> Table:
    return Table(
        "Entities by type",
        ("type", "F1", "precision", "recall", "true", "found"),
        [
            (
                name,
                *(q.percent(score[key]) for key in ("f1", "precision", "recall")),
                q.number(score["true"]),
                q.number(score["predicted"]),
            )
            for name, score in types.items()
        ],
        note="An entity is right if its type and both its boundaries are.",
    )


def _outcomes(outcomes: dict[str, dict[str, int]]) -> Table:
    rows = [
        (name, *(q.number(counts[key]) for key in OUTCOME_NAMES))
        for name, counts in outcomes.items()
    ]
    if len(outcomes) > 1:
        sums = (sum(counts[key] for counts in outcomes.values()) for key in OUTCOME_NAMES)
        rows.append(("all", *map(q.number, sums)))
    return Table(
        "Errors by type and boundary",
        ("type", *OUTCOME_NAMES.values()),
        rows,
        note="Each entity counts once, by its true type; a spurious one by the type found. "
        "A wrong boundary overlaps the true entity.",
    )


def _confusions(types: list[str], confusions: list[Any]) -> Heatmap:
    counts = {(true, found): number for true, found, number in confusions}
    rows, columns = [*types, ""], [*types, ""]
    cells: list[list[Cell]] = []
    for row in rows:
        total = sum(counts.get((row, column), 0) for column in columns)
        cells.append(
            [
                _cell(row, column, counts.get((row, column), 0), total, len(types))
                for column in columns
            ]
        )
    named = [name or _NOTHING for name in rows]
    return Heatmap(
        "Types of overlapping entities",
        named,
        named,
        cells,
        "true type",
        "type found",
        note="Wrong boundaries are on the diagonal, too. Shaded by the share of the row; errors "
        "are orange.",
    )


def _cell(row: str, column: str, number: int, total: int, types: int) -> Cell:
    if not row and not column:
        return Cell("", "", 0.0)
    said = f"{row or _NOTHING} found as {column or _NOTHING}: "
    return Cell(
        q.number(number) if number and types <= NUMBERED else "",
        said + f"{q.number(number)} of {q.number(total)}",
        number / total if total else 0.0,
        wrong=row != column,
    )


def _sentences(content: dict[str, Any]) -> MarkedTexts:
    texts: list[MarkedText] = []
    for sentence in content["worst"]:
        versions = tuple(
            (title, tuple(_marked(sentence, side))) for title, side in (("True", 1), ("Found", 2))
        )
        texts.append(MarkedText(sentence["origin"], versions))
    return MarkedTexts(
        "Sentences with most errors",
        texts,
        note=f"{q.number(content['sentences_wrong'])} of {q.number(content['sentences'])} "
        "sentences have an error. Errors are orange and named.",
        shown=6,
    )


def _marked(sentence: dict[str, Any], side: int) -> list[Marked]:
    """Return the pieces of a sentence with its true (1) or predicted (2) entities marked."""
    words: list[str] = sentence["words"]
    before, after = sentence["cut"]
    pieces: list[Marked] = [Marked("… ")] if before else []
    place = 0
    marks = sorted((m for m in sentence["marks"] if m[side]), key=lambda mark: mark[side][1])
    for mark in marks:
        kind, start, end = mark[side]
        if start > place:
            pieces.append(Marked(" ".join(words[place:start]) + " "))
        wrong = mark[0] != "right"
        label = f"{kind}, {OUTCOME_NAMES[mark[0]]}" if wrong else kind
        pieces.append(Marked(" ".join(words[start:end]), label, wrong))
        pieces.append(Marked(" "))
        place = end
    pieces.append(Marked(" ".join(words[place:]) + (" …" if after else "")))
    return [piece for piece in pieces if piece.text]
