r"""Baselines of summaries that copy: the first sentence, and the best sentences there are.

`lead1` is the first sentence of the source. `oracle` knows the references: it adds the sentence
that raises ROUGE-1 + ROUGE-2 (F-measures, the best reference of each) the most, until none raises
it (Nallapati et al. 2017, section 3.3). No extractive method can be expected to do better, so it
says how much of the references the source contains.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from etude.core.errors import DataError
from etude.core.json_text import text_list
from etude.tuning.metrics.rouge import best_of, rouge_n

BaselineName = Literal["lead1", "oracle"]

TITLES: Mapping[BaselineName, str] = {"lead1": "lead-1", "oracle": "oracle"}

MOST_SENTENCES = 200
"""Sentences that the oracle considers; it is quadratic in them, and summaries stand early."""

_BETWEEN = re.compile(
    r"[.!?][\"'”’)\]]*(?P<space>\s+)(?=[\"'“‘(\[]*[^\W_a-z])|[。！？](?P<none>\s*)|(?P<blank>\n{2,})"
)
"""What is between two sentences, in its group: space after an end and before a capital or a digit,
nothing where a script writes no spaces, or a blank line."""


def sentences_of(value: Any, where: str) -> list[str]:
    """Return the sentences of a source: a list of them as it is, a text cut at sentence ends.

    Raises:
        DataError: it is neither, or empty; the message begins with `where`.
    """
    if isinstance(value, str):
        cuts = [match.span(match.lastgroup or 0) for match in _BETWEEN.finditer(value)]
        starts = [0, *(stop for _, stop in cuts)]
        stops = [*(start for start, _ in cuts), len(value)]
        found = [value[a:b].strip() for a, b in zip(starts, stops, strict=True)]
    elif (listed := text_list(value)) is not None:
        found = [one.strip() for one in listed]
    else:
        raise DataError(f"{where} must be a text or a list of sentences, got {str(value)[:60]!r}")
    kept = [sentence for sentence in found if sentence]
    if not kept:
        raise DataError(f"{where} is empty, so there is no sentence to compare with")
    return kept


def lead1(sentences: Sequence[str], references: Sequence[str]) -> str:
    """Return the first sentence."""
    del references
    return sentences[0]


def oracle(sentences: Sequence[str], references: Sequence[str]) -> str:
    """Return the sentences that a greedy choice by ROUGE-1 + ROUGE-2 takes, in their order."""

    def value(chosen: Sequence[int]) -> float:
        text = " ".join(sentences[place] for place in sorted(chosen))
        return sum(best_of(partial(rouge_n, n=n), references, text) for n in (1, 2))

    places = range(min(len(sentences), MOST_SENTENCES))
    chosen: list[int] = []
    reached = 0.0
    while len(chosen) < len(places):
        rest = [place for place in places if place not in chosen]
        values = [value([*chosen, place]) for place in rest]
        best = max(range(len(rest)), key=lambda at: values[at])
        if values[best] <= reached:
            break
        reached = values[best]
        chosen.append(rest[best])
    return " ".join(sentences[place] for place in sorted(chosen))


BASELINES: Mapping[BaselineName, Callable[[Sequence[str], Sequence[str]], str]] = {
    "lead1": lead1,
    "oracle": oracle,
}
"""By their names in `eval.baselines`."""
