"""Figures in files of their own: well-formed, in scale, and safe with any name."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from etude.tuning.report.axis import linear_axis
from etude.tuning.report.chart import decimal_tick
from etude.tuning.report.svg import Curve, Guide, svg_chart, svg_panels

AXES = linear_axis([0, 10], decimal_tick), linear_axis([0, 1], decimal_tick)


def paths(drawing):
    return [
        element.get("d", "")
        for element in ElementTree.fromstring(drawing).iter()
        if element.tag.endswith("path") and element.get("fill") == "none"
    ]


def points(path):
    return [tuple(map(float, pair)) for pair in re.findall(r"[ML]([\d.-]+) ([\d.-]+)", path)]


def test_a_curve_goes_from_one_corner_of_the_plane_to_the_other():
    drawing = svg_chart("rise", [Curve("a", [0, 10], [0.0, 1.0])], AXES, ("x", "y"))
    (path,) = paths(drawing)
    (x0, y0), (x1, y1) = points(path)
    assert x1 > x0
    assert y1 < y0


def test_a_missing_value_is_a_gap():
    curve = Curve("a", [0, 1, 2, 3, 4], [0.0, 0.1, None, 0.3, 0.4])
    assert paths(svg_chart("gap", [curve], AXES, ("x", "y")))[0].count("M") == 2


@pytest.mark.parametrize("draw", [svg_chart, svg_panels])
def test_names_are_text_and_nothing_else(draw):
    name = "<script>&\"'"
    drawing = draw(name, [Curve(name, [0, 1], [0.0, 1.0])] * 2, AXES, (name, name))
    texts = [element.text for element in ElementTree.fromstring(drawing).iter() if element.text]
    assert any(name in text for text in texts)
    assert "<script>" not in drawing


def test_every_panel_has_the_same_scale_and_its_name():
    curves = [Curve(f"curve {i}", [0, 10], [0.0, i / 4]) for i in range(5)]
    drawing = svg_panels("five", curves, AXES, ("x", "y"))
    rises = [points(path)[0][1] - points(path)[1][1] for path in paths(drawing)]
    assert rises == pytest.approx([i * rises[4] / 4 for i in range(5)], abs=0.11)
    assert all(f"curve {i}" in drawing for i in range(5))


def test_a_band_and_a_line_are_marked():
    guides = [Guide(2, "flat", until=4), Guide(3, "here")]
    drawing = svg_chart("g", [Curve("a", [0, 1], [0.0, 1.0])], AXES, ("x", "y"), guides=guides)
    assert "flat" in drawing and "here" in drawing
