"""Trying a run that predicts: a text in, the prediction out, as a page shows it.

What is asked for is what `etude predict` reads of a row (`predict_inputs`): a text for each column
of the input. Where the base can do it, too (an embedding), it is asked as well; a head that was
trained belongs to the adapter, so that there is no base to a classifier.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from etude.app.chatting import Voice
from etude.app.predict_inputs import DOCUMENTS, GENERATING, InputReader
from etude.core.errors import DataError

if TYPE_CHECKING:
    from etude.tuning.config.recipe import Recipe
    from etude.tuning.predictor import Predictor

MOST_TEXTS = 50
"""Texts that are compared, or ranked, at a time."""


@dataclass(frozen=True)
class TryField:
    """A text that is asked for."""

    name: str
    """The column that it is in the rows of the run."""
    label: str
    help: str


def converses(recipe: Recipe) -> bool:
    """Whether a run answers instead of predicting."""
    return recipe.task in GENERATING


def voices_of(recipe: Recipe) -> tuple[Voice, ...]:
    """Return who can answer: a run that trained all weights, or a new head, has no base."""
    compared = converses(recipe) or recipe.task == "embedding"
    return ("base", "tuned") if compared and recipe.adapter.kind != "full" else ("tuned",)


def try_fields(recipe: Recipe) -> list[TryField]:
    """Return what to ask for."""
    from etude.tuning.data.columns import columns_of

    if converses(recipe):
        return [TryField("message", "Message", "")]
    if recipe.task == "embedding":
        return [
            TryField(
                "texts",
                "Texts, a line each",
                "The first is compared with each of the others: two lines or more.",
            )
        ]
    reader = InputReader(recipe)
    names = [name for column, key in reader.columns for name in sorted(columns_of(column, key))]
    if recipe.task == "reranking":
        return [
            TryField(names[0], "Query", ""),
            TryField(DOCUMENTS, "Documents, a line each", "They are ordered, the best first."),
        ]
    single = len(names) == 1
    return [TryField(name, "Text" if single else name.capitalize(), "") for name in names]


def predict_once(predictor: Predictor, values: dict[str, str], voice: Voice) -> dict[str, Any]:
    """Return what a page shows of a prediction.

    Args:
        predictor: of the run.
        values: a text for each field.
        voice: who predicts.

    Returns:
        Plain data: those of the task's prediction; for embeddings `similarities`, the cosine of the
        first text with each of the others, and these `texts`.

    Raises:
        DataError: a text is missing, or there are too many.
    """
    from etude.tuning.data.sources.registry import Row

    recipe = predictor.recipe
    if recipe.task == "embedding":
        return _similarities(predictor, _lines(values["texts"], at_least=2), voice)
    row: dict[str, Any] = dict(values)
    if recipe.task == "reranking":
        row[DOCUMENTS] = _lines(values[DOCUMENTS], at_least=1)
    made = InputReader(recipe).of_row(Row("what was typed", row))
    (prediction,) = predictor.predict([made], tuned=voice == "tuned")
    return prediction.as_json()


def _lines(text: str, at_least: int) -> list[str]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not at_least <= len(lines) <= MOST_TEXTS:
        raise DataError(f"{len(lines)} lines were given; {at_least} to {MOST_TEXTS} are wanted")
    return lines


def _similarities(predictor: Predictor, texts: list[str], voice: Voice) -> dict[str, Any]:
    import numpy as np

    made = predictor.predict(texts, tuned=voice == "tuned")
    vectors = np.array([one.as_json()["embedding"] for one in made], dtype=np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)
    return {"texts": texts[1:], "similarities": (vectors[1:] @ vectors[0]).tolist()}


@dataclass(frozen=True)
class Bar:
    """A name with its share."""

    name: str
    share: float
    chosen: bool


@dataclass(frozen=True)
class Stretch:
    """A piece of a text, an entity or between two."""

    text: str
    label: str
    """Empty between entities."""
    probability: float = 1.0


@dataclass(frozen=True)
class ShownPrediction:
    """A prediction as a page shows it: its headline, and one of the others."""

    headline: str
    bars: list[Bar]
    stretches: list[Stretch]


def shown(prediction: dict[str, Any], source: str) -> ShownPrediction:
    """Return a prediction in the form that a page shows.

    Args:
        prediction: plain data of a task's prediction.
        source: the text that it is of.
    """
    if "spans" in prediction:
        count = len(prediction["spans"])
        said = {0: "No entity", 1: "1 entity"}.get(count, f"{count} entities")
        return ShownPrediction(said, [], _stretches(source, prediction["spans"]))
    if "similarities" in prediction:
        pairs = zip(prediction["texts"], prediction["similarities"], strict=True)
        bars = [Bar(str(text), float(value), False) for text, value in pairs]
        return ShownPrediction("Cosine with the first text", bars, [])
    if "ranking" in prediction:
        bars = [
            Bar(str(one["document"]), float(one["score"]), False) for one in prediction["ranking"]
        ]
        return ShownPrediction("The best first", bars, [])
    if "number" in prediction:
        return ShownPrediction(f"{prediction['number']:.4g}", [], [])
    if "score" in prediction:
        return ShownPrediction(f"{prediction['score']:.3f}", [], [])
    if "answer" in prediction:
        return ShownPrediction(str(prediction["answer"]), [], [])
    chosen = set(prediction.get("labels") or [prediction.get("label")])
    shares = cast("dict[str, float]", prediction.get("probabilities") or {})
    bars = [Bar(name, float(share), name in chosen) for name, share in shares.items()]
    bars.sort(key=lambda bar: -bar.share)
    names = ", ".join(str(name) for name in (prediction.get("labels") or [prediction.get("label")]))
    return ShownPrediction(names if "labels" not in prediction or names else "No label", bars, [])


def _stretches(source: str, spans: list[dict[str, Any]]) -> list[Stretch]:
    found: list[Stretch] = []
    at = 0
    for span in sorted(spans, key=lambda one: int(one["start"])):
        start, end = int(span["start"]), int(span["end"])
        if start < at:
            continue
        if start > at:
            found.append(Stretch(source[at:start], ""))
        found.append(Stretch(source[start:end], str(span["label"]), float(span["probability"])))
        at = end
    return [*found, Stretch(source[at:], "")] if at < len(source) else found
