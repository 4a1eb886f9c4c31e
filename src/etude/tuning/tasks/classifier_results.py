"""Results of a head on whole texts: predictions, metrics, and the data that the report draws."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from etude.tuning.artifacts import PreparedData
from etude.tuning.data.labels import LabelKind
from etude.tuning.data.schema import Sample
from etude.tuning.images.encoded import thumbnail
from etude.tuning.metrics.calibration import reliability
from etude.tuning.metrics.classification import (
    class_report,
    confusion_matrix,
    f1_of_labels,
    label_report,
)
from etude.tuning.metrics.precision_recall import (
    average_precision,
    best_thresholds,
    curve,
    precision_at,
)
from etude.tuning.objectives.classification import label_matrix
from etude.tuning.training.evaluate import Evaluation
from etude.tuning.training.measurement import Measurement

SHOWN = 64
"""Maximum number of samples in samples.jsonl."""
WORST = 20
"""Errors that the report lists."""
EXCERPT = 400
"""Characters of a text in the list of errors."""
CURVE_POINTS = 201
SCATTER_POINTS = 1000
HALF = 0.5
DRAWN_DECISIONS = 20_000_000
"""Samples × classes up to which curves over all thresholds are computed."""

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def measured(
    kind: LabelKind, evaluation: Evaluation, data: PreparedData, thresholds: str
) -> Measurement:
    """Return what an evaluation found.

    Args:
        kind: what a label is.
        evaluation: loss, metrics and outputs (logits, or numbers).
        data: the samples that were evaluated.
        thresholds: the recipe's `eval.thresholds`.
    """
    if kind == "class":
        found = _classes(evaluation, data)
    elif kind == "multi_label":
        found = _labels(evaluation, data, thresholds)
    else:
        found = _numbers(evaluation, data)
    outputs = np.asarray(evaluation.outputs)
    digest = hashlib.sha256(np.ascontiguousarray(outputs).tobytes()).hexdigest()
    return Measurement(
        evaluation.loss,
        found.metrics,
        found.predictions,
        found.scores,
        found.details,
        digest,
        found.chosen,
    )


def _classes(evaluation: Evaluation, data: PreparedData) -> Measurement:
    labels: tuple[str, ...] = data.encoder.labels
    truth = np.asarray([cast("int", sample.label) for sample in data.eval.samples])
    probabilities = softmax(np.stack(evaluation.outputs))
    predicted = probabilities.argmax(axis=1)
    right = predicted == truth
    confidence = probabilities.max(axis=1)
    counts = confusion_matrix(truth.tolist(), predicted.tolist(), len(labels))
    bins, error = reliability(confidence, right)
    details: dict[str, Any] = {
        "per_class": {"labels": list(labels), **class_report(counts)},
        "confusion_matrix": {"labels": list(labels), "counts": counts.tolist()},
        "calibration": {"bins": [vars(one) for one in bins], "error": error, "of": "classes"},
    }
    if probabilities.size <= DRAWN_DECISIONS:
        wanted = [1] if len(labels) == 2 else range(len(labels))
        columns = [(labels[i], truth == i, probabilities[:, i]) for i in wanted]
        details["precision_recall"] = precision_recall(columns)
    wrong = np.flatnonzero(~right)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:WORST]
    details["worst_errors"] = {
        "columns": ["label", "predicted", "probability"],
        "wrong": len(wrong),
        "total": len(truth),
        "rows": [
            {
                **_row(data.eval.sources[i]),
                "cells": [
                    labels[truth[i]],
                    labels[predicted[i]],
                    float(confidence[i]),
                ],
            }
            for i in map(int, worst)
        ],
    }
    return Measurement(
        evaluation.loss,
        evaluation.metrics,
        [labels[index] for index in predicted[:SHOWN]],
        [100.0 * bool(one) for one in right[:SHOWN]],
        details,
    )


def _labels(evaluation: Evaluation, data: PreparedData, chosen_by: str) -> Measurement:
    labels: tuple[str, ...] = data.encoder.labels
    truth = label_matrix(data.eval.samples, len(labels)) > 0
    probabilities = sigmoid(np.stack(evaluation.outputs))
    saved: Floats | None = data.encoder.thresholds
    if saved is not None or chosen_by == "half":
        thresholds = np.full(len(labels), HALF) if saved is None else saved
        predicted, note = probabilities > thresholds, ""
    else:
        shared = chosen_by == "shared"
        predicted = cross_fitted(truth, probabilities, shared=shared)
        thresholds = np.asarray(best_thresholds(truth, probabilities, shared=shared))
        note = (
            "Thresholds are those of the best F1 on the evaluation samples. The figures here and "
            "above are without that advantage: each half of the samples by thresholds chosen on "
            "the other half."
        )
    micro, macro = f1_of_labels(truth, predicted)
    averages = [average_precision(truth[:, i], probabilities[:, i]) for i in range(len(labels))]
    bins, error = reliability(probabilities.ravel(), truth.ravel())
    details: dict[str, Any] = {
        "per_label": {
            "labels": list(labels),
            "thresholds": thresholds.tolist(),
            **label_report(truth, predicted),
            "average_precision": averages,
            "note": note,
        },
        "calibration": {"bins": [vars(one) for one in bins], "error": error, "of": "labels"},
    }
    if probabilities.size <= DRAWN_DECISIONS:
        details["precision_recall"] = precision_recall(
            [(name, truth[:, i], probabilities[:, i]) for i, name in enumerate(labels)]
        )
    # How sure the model was of a decision that is wrong.
    surprise = np.where(truth, 1 - probabilities, probabilities) * (predicted != truth)
    order = np.argsort(-surprise, axis=None, kind="stable")[:WORST]
    worst = [divmod(int(place), len(labels)) for place in order if surprise.flat[int(place)] > 0]
    details["worst_errors"] = {
        "columns": ["label", "predicted", "probability"],
        "wrong": int((predicted != truth).sum()),
        "total": int(truth.size),
        "rows": [
            {
                **_row(data.eval.sources[i]),
                "cells": [
                    f"{labels[j]}" if truth[i, j] else f"not {labels[j]}",
                    f"{labels[j]}" if predicted[i, j] else f"not {labels[j]}",
                    float(probabilities[i, j]),
                ],
            }
            for i, j in worst
        ],
    }
    names = [named(predicted[i], labels) for i in range(min(SHOWN, len(predicted)))]
    right = (predicted == truth).all(axis=1)
    return Measurement(
        evaluation.loss,
        {**evaluation.metrics, "micro_f1": micro, "macro_f1": macro},
        [", ".join(one) for one in names],
        [100.0 * bool(one) for one in right[:SHOWN]],
        details,
        chosen={"thresholds": thresholds.tolist()},
    )


def _numbers(evaluation: Evaluation, data: PreparedData) -> Measurement:
    truth = np.asarray([cast("float", sample.label) for sample in data.eval.samples])
    predicted = np.asarray(evaluation.outputs, float)
    errors = predicted - truth
    worst = np.argsort(-np.abs(errors), kind="stable")[:WORST]
    chosen = np.linspace(0, len(truth) - 1, min(len(truth), SCATTER_POINTS)).astype(int)
    details = {
        "regression": {
            "true": truth[chosen].tolist(),
            "predicted": predicted[chosen].tolist(),
            "samples": len(truth),
            "residuals": _histogram(errors),
            "mean_error": float(errors.mean()),
        },
        "worst_errors": {
            "columns": ["number", "predicted", "error"],
            "wrong": len(worst),
            "total": len(truth),
            "rows": [
                {
                    **_row(data.eval.sources[i]),
                    "cells": [float(truth[i]), float(predicted[i]), float(errors[i])],
                }
                for i in map(int, worst)
            ],
        },
    }
    return Measurement(
        evaluation.loss,
        evaluation.metrics,
        [f"{one:.4g}" for one in predicted[:SHOWN]],
        [],
        details,
    )


def cross_fitted(truth: Bools, probabilities: Floats, *, shared: bool) -> Bools:
    """Return the predictions of each half of the samples by thresholds chosen on the other half.

    Args:
        truth: (samples, labels).
        probabilities: (samples, labels).
        shared: whether all labels have one threshold.
    """
    half = np.random.default_rng(0).permutation(len(truth)) % 2 == 0
    predicted = np.zeros_like(truth)
    for chosen, applied in ((half, ~half), (~half, half)):
        if chosen.any():
            thresholds = best_thresholds(truth[chosen], probabilities[chosen], shared=shared)
        else:
            thresholds = [HALF] * truth.shape[1]
        predicted[applied] = probabilities[applied] > np.asarray(thresholds)
    return predicted


def precision_recall(columns: Sequence[tuple[str, Bools, Floats]]) -> dict[str, Any]:
    """Return the curve of one class, or the mean curve of all, with the average precision.

    Args:
        columns: name, truth and score of each class against the others.
    """
    columns = [column for column in columns if column[1].any()]
    averages = {name: average_precision(truth, scores) for name, truth, scores in columns}
    known = [value for value in averages.values() if value is not None]
    if not known:
        return {}
    if len(columns) == 1:
        (name, truth, scores) = columns[0]
        precision, recall, _ = curve(truth, scores)
        kept = np.unique(np.linspace(0, len(recall) - 1, CURVE_POINTS).astype(int))
        points = (recall[kept], precision[kept])
    else:
        name = ""
        recalls = np.linspace(0, 1, CURVE_POINTS)
        mean = np.mean([precision_at(truth, scores, recalls) for _, truth, scores in columns], 0)
        points = (recalls, mean)
    return {
        "class": name,
        "classes": len(columns),
        "recall": points[0].tolist(),
        "precision": points[1].tolist(),
        "average_precision": float(np.mean(known)),
        "share": float(np.mean([truth.mean() for _, truth, _ in columns])),
    }


def named(chosen: Bools, labels: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the chosen labels."""
    return tuple(label for label, one in zip(labels, chosen, strict=True) if one)


def softmax(logits: NDArray[Any]) -> Floats:
    """Return the probabilities of classes, (samples, classes)."""
    powers = np.exp(logits.astype(float) - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def sigmoid(logits: NDArray[Any]) -> Floats:
    """Return the probabilities of labels, (samples, labels)."""
    return np.exp(-np.logaddexp(0, -logits.astype(float)))


def _histogram(values: Floats, bins: int = 24) -> dict[str, Any]:
    counts, edges = np.histogram(values, bins)
    return {"edges": edges.tolist(), "counts": counts.tolist()}


def _row(sample: Sample) -> Mapping[str, Any]:
    if sample.image is not None:
        return {"origin": sample.origin, "text": "", "image": thumbnail(Path(sample.image))}
    text = excerpt(sample.text or "")
    return {
        "origin": sample.origin,
        "text": text if sample.pair is None else f"{text} | {excerpt(sample.pair)}",
    }


def excerpt(text: str) -> str:
    """Return a text on one line, cut after `EXCERPT` characters."""
    line = " ".join(text.split())
    return line if len(line) <= EXCERPT else f"{line[:EXCERPT]}…"
