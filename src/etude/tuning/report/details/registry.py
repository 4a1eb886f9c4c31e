"""What the report draws of details.json, in order.

A new kind of result is a function in a file beside this one, and a line here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from etude.tuning.report.blocks import Block
from etude.tuning.report.details.baselines import baselines
from etude.tuning.report.details.classification import confusion_matrix, per_class, per_label
from etude.tuning.report.details.entities import entity_results
from etude.tuning.report.details.errors import worst_errors
from etude.tuning.report.details.final_test import final_test
from etude.tuning.report.details.forgetting import forgetting
from etude.tuning.report.details.generation import documents, generation
from etude.tuning.report.details.probabilities import calibration, precision_recall
from etude.tuning.report.details.regression import regression
from etude.tuning.report.details.retrieval import retrieval

Drawer = Callable[[Any], list[Block]]
ComparingDrawer = Callable[[Any, Mapping[str, Any]], list[Block]]

DRAWN: dict[str, Drawer] = {
    "final_test": final_test,
    "baselines": baselines,
    "regression": regression,
    "calibration": calibration,
    "precision_recall": precision_recall,
    "per_class": per_class,
    "per_label": per_label,
    "confusion_matrix": confusion_matrix,
    "retrieval": retrieval,
    "entities": entity_results,
    "worst_errors": worst_errors,
}


COMPARED: dict[str, ComparingDrawer] = {
    "generation": generation,
    "documents": documents,
    "forgetting": forgetting,
}
"""Results that are drawn beside the figures of the run's summary.json, before and after."""


def blocks(details: Mapping[str, Any], summary: Mapping[str, Any] | None = None) -> list[Block]:
    """Return the blocks of a run's details; names that are not known are passed over."""
    drawn = [
        block for name, draw in DRAWN.items() if name in details for block in draw(details[name])
    ]
    compared = [
        block
        for name, draw in COMPARED.items()
        if name in details
        for block in draw(details[name], summary or {})
    ]
    return drawn + compared
