"""A tagger's results on the page: counts that add up, and marks that are where entities are."""

from __future__ import annotations

import json

import pytest

from etude.tuning.data.schema import Sample
from etude.tuning.metrics.entities import Entity
from etude.tuning.report.blocks import Heatmap, MarkedTexts, Table
from etude.tuning.report.details.entities import entity_results
from etude.tuning.report.page import write_report
from etude.tuning.tasks.entity_details import LONGEST, entity_details

WORDS = [
    "Aspirin",
    ",",
    "lithium",
    "carbonate",
    "and",
    "<b>ulcers</b>",
    "after",
    "renal",
    "failure",
    ".",
]
TRUE = [Entity("Drug", 0, 1), Entity("Drug", 2, 4), Entity("Ill", 5, 6), Entity("Ill", 7, 9)]
FOUND = [Entity("Drug", 0, 1), Entity("Drug", 3, 4), Entity("Drug", 5, 6), Entity("Ill", 9, 10)]


def details(words=WORDS, true=TRUE, found=FOUND):
    sample = Sample((), " ".join(words), "eval.conll:7", words=tuple(words))
    made = entity_details([sample], [true], [found])
    return json.loads(json.dumps(made))["entities"]


def test_errors_are_counted_by_type_and_kind():
    scores, outcomes, confusions, texts = entity_results(details())
    assert isinstance(scores, Table)
    assert [row[0] for row in scores.rows] == ["Drug", "Ill"]
    assert isinstance(outcomes, Table)
    # right, boundary, type, both, missing, spurious
    assert [list(row) for row in outcomes.rows] == [
        ["Drug", "1", "1", "0", "0", "0", "0"],
        ["Ill", "0", "0", "1", "0", "1", "1"],
        ["all", "1", "1", "1", "0", "1", "1"],
    ]
    assert isinstance(confusions, Heatmap)
    assert [[cell.text for cell in row] for row in confusions.cells] == [
        ["2", "", ""],
        ["1", "", "1"],
        ["", "1", ""],
    ]
    assert isinstance(texts, MarkedTexts)
    true, found = (dict_of(pieces) for _, pieces in texts.texts[0].versions)
    assert true["lithium carbonate"] == ("Drug, wrong boundary", True)
    assert found["carbonate"] == ("Drug, wrong boundary", True)
    assert true["Aspirin"] == ("Drug", False)
    assert true["renal failure"] == ("Ill, missing", True)
    assert found["."] == ("Ill, spurious", True)


def dict_of(pieces):
    return {piece.text: (piece.label, piece.wrong) for piece in pieces if piece.label}


def test_a_long_sentence_is_cut_about_its_first_error():
    words = ["w"] * 400
    content = details(words, [Entity("X", 300, 302)], [Entity("X", 0, 1)] * 0)
    (sentence,) = content["worst"]
    assert len(sentence["words"]) == LONGEST
    assert sentence["cut"] == [True, True]
    assert sentence["marks"] == [["missing", ["X", 30, 32], None]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 375])
def test_the_page_shows_marks_and_never_scrolls_sideways(make_run, browser, width, scheme):
    folder = make_run()
    folder.write_json("details.json", {"entities": details()})
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.goto(write_report(folder).resolve().as_uri())
    marks = page.locator("#results mark")
    assert marks.count() == 8
    assert marks.filter(has_text="missing").inner_text().startswith("renal failure")
    assert page.locator("#results mark", has_text="<b>ulcers</b>").count() == 2
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert said == []
    context.close()
