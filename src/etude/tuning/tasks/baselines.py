"""Baselines beside a text classifier: the commonest answer, and TF-IDF with a linear model.

What a model of millions of parameters must beat: a constant, and words counted and weighted by a
linear model that is fitted in seconds (logistic regression; ridge regression for numbers). They are
fitted on the training samples and scored on the evaluation samples by the task's own metrics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from etude.core.progress import Progress
from etude.tuning.data.encoded import EncodedSet
from etude.tuning.data.labels import LabelKind
from etude.tuning.data.schema import Sample
from etude.tuning.metrics.classification import accuracy, f1_of_labels, macro_f1
from etude.tuning.metrics.metric import Metric
from etude.tuning.metrics.regression import regression_metrics
from etude.tuning.objectives.classification import label_matrix

MOST_ROWS = 20_000
"""Training samples that TF-IDF is fitted on at most: more take minutes and change little."""
MOST_TERMS = 50_000
CONSTANT = {"class": "majority class", "multi_label": "commonest labels", "number": "mean"}
LINEAR = {
    "class": "TF-IDF + logistic regression",
    "multi_label": "TF-IDF + logistic regression",
    "number": "TF-IDF + ridge regression",
}


def baselines(
    kind: LabelKind,
    labels: int,
    train: EncodedSet,
    held_out: EncodedSet,
    *,
    balanced: bool,
    progress: Progress,
) -> dict[str, Any]:
    """Return the scores of the baselines, as the report takes them.

    Args:
        kind: what a label is.
        labels: number of classes or labels.
        train: samples to fit, with their texts.
        held_out: samples to score.
        balanced: whether classes are weighted in the fit (`objective.class_weights`).
        progress: reports the fit.

    Returns:
        `rows`, each with a name and metrics; `note` says what was left out.
    """
    targets = [sample.label for sample in train.samples]
    truth = [sample.label for sample in held_out.samples]
    matrix = label_matrix(train.samples, labels) if kind == "multi_label" else np.zeros((0, 0))
    rows: list[dict[str, Any]] = majority(kind, labels, train, held_out)["rows"]
    progress.start(f"Fitting {LINEAR[kind]}", None)
    note = ""
    try:
        predicted = _linear(kind, matrix, targets, train.sources, held_out.sources, balanced)
    except ImportError:
        note = "TF-IDF needs scikit-learn: pip install 'etude[text]'."
    else:
        rows.append({"name": LINEAR[kind], "metrics": _scores(kind, labels, truth, predicted)})
        if len(targets) > MOST_ROWS:
            note = f"TF-IDF was fitted on {MOST_ROWS:,} of the {len(targets):,} training samples."
    progress.finish()
    return {"rows": rows, "note": note}


def majority(
    kind: LabelKind, labels: int, train: EncodedSet, held_out: EncodedSet
) -> dict[str, Any]:
    """Return the scores of the commonest answer alone, as `baselines` does.

    Args:
        kind: what a label is.
        labels: number of classes or labels.
        train: samples, of texts or images.
        held_out: samples to score.
    """
    targets = [sample.label for sample in train.samples]
    truth = [sample.label for sample in held_out.samples]
    if kind == "class":
        constant: Any = np.bincount(cast("list[int]", targets), minlength=labels).argmax()
    elif kind == "multi_label":
        constant = label_matrix(train.samples, labels).mean(axis=0) > 0.5
    else:
        constant = float(np.mean(cast("list[float]", targets)))
    scores = _scores(kind, labels, truth, [constant] * len(truth))
    return {"rows": [{"name": CONSTANT[kind], "metrics": scores}], "note": ""}


def beside_model(
    found: Mapping[str, Any], model: Mapping[str, float], metrics: Sequence[Metric]
) -> dict[str, Any]:
    """Return baselines and model, with a verdict where the model is not better than a baseline.

    Args:
        found: from `baselines`.
        model: the model's metrics.
        metrics: of the task, the most important first, by which the verdict is made.
    """
    first = metrics[0]
    rows: list[Mapping[str, Any]] = found["rows"]
    # A baseline has no teacher: what it is not measured by is not compared.
    shared = [m for m in metrics if all(m.name in row["metrics"] for row in rows)]
    beaten_by = [
        row for row in rows if not first.better(model[first.name], row["metrics"][first.name])
    ]
    verdict = ""
    if beaten_by:
        worst = beaten_by[-1]
        verdict = (
            f"The tuned model is not better than {worst['name']}: {first.title} "
            f"{first.text(model[first.name])} against {first.text(worst['metrics'][first.name])}."
        )
    return {
        "rows": [*rows, {"name": "this model", "metrics": dict(model)}],
        "metrics": [metric.as_json() for metric in shared],
        "verdict": verdict,
        "note": found["note"],
    }


def _linear(
    kind: LabelKind,
    matrix: Any,
    targets: Sequence[Any],
    train: Sequence[Sample],
    held_out: Sequence[Sample],
    balanced: bool,
) -> Sequence[Any]:
    """Return the predictions of a linear model of TF-IDF for the held-out texts.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    import sklearn.linear_model as linear  # pyright: ignore[reportMissingTypeStubs]
    from sklearn.feature_extraction import text  # pyright: ignore[reportMissingTypeStubs]

    chosen = np.arange(len(targets))
    if len(chosen) > MOST_ROWS:
        chosen = np.sort(np.random.default_rng(0).permutation(len(chosen))[:MOST_ROWS])
    make_terms: Any = text.TfidfVectorizer
    # One-letter words are words in many languages, and punctuation tells apart questions.
    terms = make_terms(
        ngram_range=(1, 2),
        sublinear_tf=True,
        max_features=MOST_TERMS,
        token_pattern=r"(?u)\w+|[^\w\s]",
    )
    X = terms.fit_transform([_text(train[int(i)]) for i in chosen])
    Z = terms.transform([_text(sample) for sample in held_out])
    if kind == "number":
        ridge: Any = linear.Ridge
        return ridge(alpha=1.0).fit(X, np.asarray(targets)[chosen]).predict(Z).tolist()
    logistic: Any = linear.LogisticRegression

    def model() -> Any:
        return logistic(
            C=10.0,
            max_iter=200,
            solver="liblinear",
            class_weight="balanced" if balanced else None,
            random_state=0,
        )

    if kind == "multi_label":
        columns = [
            model().fit(X, y).predict(Z) if 0 < y.sum() < len(y) else np.full(Z.shape[0], y[0])
            for y in (matrix[chosen].T > 0)
        ]
        return list(np.stack(columns, axis=1))
    y = np.asarray(targets)[chosen]
    present = np.unique(y)
    if len(present) < 2:
        return [int(present[0])] * Z.shape[0]
    if len(present) == 2:
        return model().fit(X, y).predict(Z).tolist()
    # One class against the others, for each: as good as the multinomial model, and many times
    # faster to fit for many classes.
    scores = [model().fit(X, y == label).decision_function(Z) for label in present]
    return present[np.argmax(np.stack(scores), axis=0)].tolist()


def _scores(
    kind: LabelKind, labels: int, truth: Sequence[Any], predicted: Sequence[Any]
) -> dict[str, float]:
    if kind == "class":
        return {
            "accuracy": accuracy(truth, [int(one) for one in predicted]),
            "macro_f1": macro_f1(truth, predicted, labels),
        }
    if kind == "number":
        return regression_metrics(truth, predicted)
    actual = np.zeros((len(truth), labels), dtype=np.bool_)
    for row, present in enumerate(truth):
        actual[row, list(present)] = True
    micro, macro = f1_of_labels(actual, np.stack(predicted).astype(np.bool_))
    return {"micro_f1": micro, "macro_f1": macro}


def _text(sample: Sample) -> str:
    return sample.text or "" if sample.pair is None else f"{sample.text}\n{sample.pair}"
