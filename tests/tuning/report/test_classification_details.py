"""Results of classifiers in the page: what is drawn of the details, readable on any screen."""

from __future__ import annotations

import numpy as np
import pytest

from etude.tuning.metrics.calibration import reliability
from etude.tuning.metrics.classification import class_report, confusion_matrix
from etude.tuning.metrics.metric import ACCURACY, MACRO_F1
from etude.tuning.report.details.registry import blocks
from etude.tuning.report.page import write_report


def details(classes=12, rows=600):
    """Details as a run of so many classes would write them."""
    from etude.tuning.tasks.classifier_results import precision_recall

    random = np.random.default_rng(0)
    labels = [f"class_{n:02}" for n in range(classes)]
    truth = random.integers(0, classes, rows)
    logits = random.normal(size=(rows, classes))
    logits[np.arange(rows), truth] += 3
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    predicted = shares.argmax(1)
    counts = confusion_matrix(truth.tolist(), predicted.tolist(), classes)
    bins, error = reliability(shares.max(1), predicted == truth)
    scores = {"accuracy": 0.83, "macro_f1": 0.82}
    return {
        "baselines": {
            "rows": [
                {"name": "majority class", "metrics": {"accuracy": 0.09, "macro_f1": 0.01}},
                {"name": "TF-IDF + logistic regression", "metrics": scores},
                {"name": "this model", "metrics": {"accuracy": 0.81, "macro_f1": 0.825}},
            ],
            "metrics": [ACCURACY.as_json(), MACRO_F1.as_json()],
            "verdict": "The tuned model is not better than TF-IDF + logistic regression: accuracy "
            "81.0 % against 83.0 %.",
            "note": "",
        },
        "per_class": {"labels": labels, **class_report(counts)},
        "confusion_matrix": {"labels": labels, "counts": counts.tolist()},
        "calibration": {"bins": [vars(one) for one in bins], "error": error, "of": "classes"},
        "precision_recall": precision_recall(
            [(labels[i], truth == i, shares[:, i]) for i in range(classes)]
        ),
        "worst_errors": {
            "columns": ["label", "predicted", "probability"],
            "wrong": 3,
            "total": rows,
            "rows": [
                {
                    "origin": f"test.csv:{n}",
                    "text": "Why was I charged twice for one payment that I made abroad? " * 3,
                    "cells": [labels[0], labels[1], 0.99 - n / 100],
                }
                for n in range(8)
            ],
        },
    }


def numbers():
    random = np.random.default_rng(0)
    truth = random.uniform(0, 5, 300)
    found = truth + random.normal(0, 0.6, 300)
    counts, edges = np.histogram(found - truth, 24)
    return {
        "regression": {
            "true": truth.tolist(),
            "predicted": found.tolist(),
            "samples": 300,
            "residuals": {"edges": edges.tolist(), "counts": counts.tolist()},
            "mean_error": float((found - truth).mean()),
        },
        "worst_errors": {
            "columns": ["number", "predicted", "error"],
            "wrong": 1,
            "total": 300,
            "rows": [{"origin": "sts.csv:4", "text": "a | b", "cells": [1.0, 4.2, 3.2]}],
        },
    }


def test_tables_say_what_is_worst_first():
    found = {getattr(block, "title", ""): block for block in blocks(details())}
    by_class = found["By class"]
    content = details()["per_class"]
    worst = min(range(12), key=lambda i: content["f1"][i])
    assert by_class.rows[0][0] == content["labels"][worst]
    beside = found["Beside simple baselines"]
    assert beside.best == frozenset({(1, 1), (2, 2)})
    assert blocks(details())[0].text.startswith("The tuned model is not better")
    errors = found["Worst errors"]
    assert errors.rows[0][:1] == ("test.csv:0",) and errors.rows[0][3] == "99.0 %"


def test_labels_have_their_thresholds():
    (table,) = blocks(
        {
            "per_label": {
                "labels": ["late", "rude"],
                "thresholds": [0.31, 0.5],
                "precision": [0.8, 0.5],
                "recall": [0.7, 0.25],
                "f1": [0.747, 0.333],
                "support": [20, 4],
                "average_precision": [0.81, None],
                "note": "By halves.",
            }
        }
    )
    assert table.rows[0] == ("rude", "0.50", "50.0 %", "25.0 %", "33.3 %", "–", "4")
    assert table.note == "The lowest F1 first. By halves."


@pytest.mark.parametrize("content", [details(), details(77, 3000), numbers()])
def test_points_of_charts_are_the_figures(content):
    for block in blocks(content):
        if block.kind != "plot":
            continue
        points = block.chart.points
        (line,) = points["lines"]
        assert len(points["at"]) == len(line["x"]) == len(line["text"])
        assert line["x"] == sorted(line["x"])
        assert all(0 <= height <= 1000 for height in line["linear"])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_has_no_overflow_and_no_error(make_run, browser, scheme, width):
    folder = make_run("classes")
    folder.write_json(
        "details.json", {**details(), **numbers(), **{"worst_errors": details()["worst_errors"]}}
    )
    page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
    said = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(write_report(folder).as_uri())
    assert said == []
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(wide) <= 0
    assert page.locator("#results .remark").count() == 1
    for chart in ("calibration", "precision-recall", "predicted", "residuals"):
        plot = page.locator(f"#{chart} .plot")
        plot.hover()
        assert page.locator(f"#{chart} .readout b").inner_text().strip()
    assert said == []
    page.close()
