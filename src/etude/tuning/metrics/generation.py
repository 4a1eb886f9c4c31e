r"""Metrics of generated texts against one or more references, each by its name in `eval.metrics`.

ROUGE is the mean over texts of the best F-measure over the references of each, as in `rouge-score`
(Lin 2004). BLEU (Papineni et al. 2002) and chrF (Popović 2015) are those of the whole set by
sacreBLEU (Post 2018), with as many references as each text has; texts in scripts without spaces
are cut into characters for BLEU. Exact match compares whole answers, or what a pattern captures of
them, after `normalized`. Slots: see `slots`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from etude.core.errors import DataError, RecipeError
from etude.tuning.metrics.metric import ROUGE_L, Metric
from etude.tuning.metrics.rouge import best_of, rouge_l, rouge_n, unspaced_share
from etude.tuning.metrics.slots import read_slots, realized

MetricName = Literal["rouge1", "rouge2", "rougeL", "bleu", "chrf", "exact_match", "slots"]

MOSTLY_UNSPACED = 0.3
"""Share of characters of unspaced scripts in the references from which BLEU compares characters."""

_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


@dataclass(frozen=True)
class GeneratedText:
    """A text of the model, and what it is compared with."""

    text: str
    references: tuple[str, ...]
    """At least one."""

    origin: str
    """Row of the sample, for errors."""

    columns: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Further columns of the row: that of `eval.slots`."""


@dataclass(frozen=True)
class MetricSettings:
    """Settings of the recipe that metrics read."""

    answer_pattern: str | None = None
    slots: str | None = None


Scorer = Callable[[Sequence[GeneratedText], MetricSettings], float]


@dataclass(frozen=True)
class TextMetric:
    """A metric of generated texts."""

    metric: Metric
    score: Scorer
    """Of at least one text; returns a value as `metric` formats it."""

    validity: str
    """Where the figure can be trusted, for the report."""


def _mean_rouge(texts: Sequence[GeneratedText], settings: MetricSettings, *, measure: Any) -> float:
    del settings
    scores = [best_of(measure, one.references, one.text) for one in texts]
    return 100 * sum(scores) / len(scores)


def bleu_tokenizer(texts: Sequence[GeneratedText]) -> str:
    """Return the tokenizer of sacreBLEU that suits the references: `13a`, or `char`."""
    share = unspaced_share(reference for one in texts for reference in one.references)
    return "char" if share > MOSTLY_UNSPACED else "13a"


def _bleu(texts: Sequence[GeneratedText], settings: MetricSettings) -> float:
    from sacrebleu.metrics.bleu import BLEU

    del settings
    made = BLEU(tokenize=bleu_tokenizer(texts))
    return float(made.corpus_score([one.text for one in texts], _streams(texts)).score)


def _chrf(texts: Sequence[GeneratedText], settings: MetricSettings) -> float:
    from sacrebleu.metrics.chrf import CHRF

    del settings
    return float(CHRF().corpus_score([one.text for one in texts], _streams(texts)).score)


def _streams(texts: Sequence[GeneratedText]) -> list[Any]:
    """Return references as sacreBLEU takes them: the first of each text, the second, ...

    None stands where a text has fewer.
    """
    most = max(len(one.references) for one in texts)
    return [
        [one.references[place] if place < len(one.references) else None for one in texts]
        for place in range(most)
    ]


def normalized(text: str) -> str:
    """Return an answer as exact match compares it.

    Case, form (NFKC), runs of white space, commas between thousands and a full stop at the end
    make no difference.
    """
    text = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(_THOUSANDS.sub("", text).split()).removesuffix(".").rstrip()


def answer_of(text: str, pattern: str | None) -> str | None:
    """Return what is compared: what `pattern` captures last, None where it matches nowhere.

    Without a group, it is what the pattern matches; without a pattern, the whole text.
    """
    if pattern is None:
        return normalized(text)
    found = list(re.finditer(pattern, text))
    if not found:
        return None
    last = found[-1]
    return normalized(last.group(1 if last.re.groups else 0) or "")


def is_exact(one: GeneratedText, settings: MetricSettings) -> bool:
    """Return whether the answer is that of a reference.

    Raises:
        DataError: `eval.answer_pattern` matches no reference of the row.
    """
    pattern = settings.answer_pattern
    wanted = {answer_of(reference, pattern) for reference in one.references} - {None}
    if not wanted:
        raise DataError(
            f"{one.origin}: eval.answer_pattern {pattern!r} matches nothing in the reference "
            f"{one.references[0][-60:]!r}; correct the pattern, or the row"
        )
    return answer_of(one.text, pattern) in wanted


def _exact(texts: Sequence[GeneratedText], settings: MetricSettings) -> float:
    return sum(is_exact(one, settings) for one in texts) / len(texts)


def _slots(texts: Sequence[GeneratedText], settings: MetricSettings) -> float:
    if settings.slots is None:
        raise RecipeError("eval.metrics: slots needs eval.slots, the column of the slots")
    there = wanted = 0
    for one in texts:
        if settings.slots not in one.columns:
            raise DataError(f"{one.origin}: no column {settings.slots!r} (eval.slots)")
        slots = read_slots(one.columns[settings.slots], f"{one.origin}: column {settings.slots!r}")
        found = realized(slots, one.text)
        there += sum(found)
        wanted += len(found)
    if not wanted:
        raise DataError(
            f"{texts[0].origin}: no row has a slot whose value can be looked for in a text "
            "(eval.slots); values that only say yes or no cannot"
        )
    return there / wanted


def _points(name: str, title: str) -> Metric:
    return Metric(name, title, "points", higher_is_better=True, note="points")


_ROUGE_VALIDITY = (
    "words of any script, characters where a script writes no spaces; English words by their stems"
)

TEXT_METRICS: Mapping[MetricName, TextMetric] = {
    "rougeL": TextMetric(ROUGE_L, partial(_mean_rouge, measure=rouge_l), _ROUGE_VALIDITY),
    "rouge1": TextMetric(
        _points("rouge1", "ROUGE-1"),
        partial(_mean_rouge, measure=partial(rouge_n, n=1)),
        _ROUGE_VALIDITY,
    ),
    "rouge2": TextMetric(
        _points("rouge2", "ROUGE-2"),
        partial(_mean_rouge, measure=partial(rouge_n, n=2)),
        _ROUGE_VALIDITY,
    ),
    "bleu": TextMetric(
        _points("bleu", "BLEU"),
        _bleu,
        "sacreBLEU: words (13a), which needs spaces between them; characters where most of the "
        "text is of scripts without spaces, not comparable with BLEU of words",
    ),
    "chrf": TextMetric(
        _points("chrf", "chrF"), _chrf, "sacreBLEU: runs of up to 6 characters, in any script"
    ),
    "exact_match": TextMetric(
        Metric("exact_match", "exact match", "percent", higher_is_better=True, note="of answers"),
        _exact,
        "whole answers, or what eval.answer_pattern captures; case, spaces and commas between "
        "thousands make no difference",
    ),
    "slots": TextMetric(
        Metric(
            "slots", "slots realised", "percent", higher_is_better=True, note="values in the text"
        ),
        _slots,
        "values that occur word for word; a paraphrase counts as missing, and values that only "
        "say yes or no are not counted",
    ),
}
"""By their names in `eval.metrics`, in the order of display."""


def scored(
    texts: Sequence[GeneratedText], names: Sequence[MetricName], settings: MetricSettings
) -> dict[str, float]:
    """Return each named metric of the texts by the name of its `Metric`; empty without texts.

    Raises:
        DataError: a row lacks what a metric compares with.
    """
    if not texts:
        return {}
    chosen = [TEXT_METRICS[name] for name in TEXT_METRICS if name in names]
    return {one.metric.name: one.score(texts, settings) for one in chosen}
