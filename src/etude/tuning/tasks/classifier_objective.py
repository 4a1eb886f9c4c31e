"""Objective of a head on whole samples, texts or images: loss, weights and counts of classes.

A head has classes, several labels or a number; an encoder of the samples says which.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

from etude.core.errors import DataError
from etude.tuning.config.recipe import Recipe
from etude.tuning.data.encoded import EncodedSet
from etude.tuning.data.labels import LabelKind
from etude.tuning.objectives.base import Objective
from etude.tuning.objectives.classification import (
    Classification,
    MultiLabel,
    Regression,
    balanced_class_weights,
    balanced_label_weights,
)

LISTED_CLASSES = 20
"""Classes up to which the data's table has a line for each."""


class ClassEncoder(Protocol):
    """What an encoder of samples says of their labels."""

    @property
    def kind(self) -> LabelKind:
        """What a label is."""
        ...

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes or labels, in the order of the model's outputs."""
        ...

    @property
    def options(self) -> Mapping[str, Any]:
        """Further facts that are saved with the head."""
        ...


def refuse_unsuitable(recipe: Recipe, kind: LabelKind) -> None:
    """Refuse options that the kind of label has no use for.

    Raises:
        DataError: naming the option.
    """
    what = {"class": "classes", "multi_label": "several labels a row", "number": "numbers"}[kind]
    refused = {
        "objective.class_weights": kind == "number" and recipe.objective.class_weights != "none",
        "objective.focal_gamma": kind == "number" and recipe.objective.focal_gamma > 0,
        "objective.label_smoothing": kind != "class" and recipe.objective.label_smoothing > 0,
        "train.sampling": kind != "class" and recipe.train.sampling != "shuffle",
    }
    for option, bad in refused.items():
        if bad:
            raise DataError(
                f"{option} is for classes, and the labels of these data are {what}; omit it"
            )


def objective_of(
    recipe: Recipe,
    encoder: ClassEncoder,
    train: EncodedSet | None,
    found: dict[str, Any] | None = None,
) -> Objective:
    """Return the objective; without training samples, as evaluations use it: unweighted."""
    if encoder.kind == "number":
        options = encoder.options
        return Regression(float(options["mean"]), float(options["deviation"]), found)
    make = Classification if encoder.kind == "class" else MultiLabel
    if train is None:
        return make(len(encoder.labels))
    weights, spec = class_weights_of(recipe, encoder, train), recipe.objective
    if encoder.kind == "class":
        return Classification(
            len(encoder.labels), weights, spec.focal_gamma, found, spec.label_smoothing
        )
    return MultiLabel(len(encoder.labels), weights, spec.focal_gamma, found)


def class_weights_of(
    recipe: Recipe, encoder: ClassEncoder, train: EncodedSet
) -> list[float] | None:
    """Return the weight of each class or label in the loss; None where all are 1."""
    if recipe.objective.class_weights == "none":
        return None
    balanced = balanced_class_weights if encoder.kind == "class" else balanced_label_weights
    return balanced(train.samples, len(encoder.labels))


def weights_note(weights: Sequence[float], labels: Sequence[str]) -> str:
    """Return the line that says by which weights classes are trained."""
    if len(weights) <= LISTED_CLASSES:
        each = ", ".join(
            f"{label} {weight:.3g}" for label, weight in zip(labels, weights, strict=True)
        )
    else:
        each = f"{min(weights):.3g} to {max(weights):.3g}"
    return f"weights in the loss (objective.class_weights: balanced): {each}"


def class_facts(encoder: ClassEncoder, train: EncodedSet) -> dict[str, int | float | str]:
    """Return the samples of each class, condensed where there are many."""
    if encoder.kind == "number":
        mean, deviation = encoder.options["mean"], encoder.options["deviation"]
        return {"labels": f"mean {mean:.4g}, standard deviation {deviation:.4g}"}
    counted: Counter[int] = Counter()
    for sample in train.samples:
        label = sample.label
        counted.update(cast("tuple[int, ...]", label if isinstance(label, tuple) else (label,)))
    name = "class" if encoder.kind == "class" else "label"
    if len(encoder.labels) <= LISTED_CLASSES:
        return {f"{name} {label}": counted[i] for i, label in enumerate(encoder.labels)}
    counts = [counted[i] for i in range(len(encoder.labels))]
    each = f"{len(counts):,}, {min(counts):,} to {max(counts):,} rows each"
    return {"classes" if name == "class" else "labels": each}
