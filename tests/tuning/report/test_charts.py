"""Axes, thinning and drawing: what must hold for any data."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.core import units as q
from etude.tuning.metrics.smoothing import smooth
from etude.tuning.report.axis import linear_axis, logarithmic_axis
from etude.tuning.report.chart import Line, decimal_tick, histogram, line_chart
from etude.tuning.report.plot import text_plot
from etude.tuning.report.series import Series, series, smoothing, sparkline, thin

finite = st.integers(-(10**9), 10**9).map(lambda thousandths: thousandths / 1000)
positive = st.floats(min_value=1e-6, max_value=1e6)


@given(st.lists(finite, min_size=1, max_size=50), st.booleans())
def test_linear_axis_holds_all_values_between_ticks_in_order(values, from_zero):
    axis = linear_axis(values, decimal_tick, from_zero=from_zero)
    assert all(-1e-6 <= axis.position(value) <= 1 + 1e-6 for value in values)
    positions = [tick.position for tick in axis.ticks]
    assert positions == sorted(positions)
    assert 2 <= len(positions) <= 12
    # A reader tells the ticks apart only if no two are written alike.
    assert len({tick.label for tick in axis.ticks}) == len(axis.ticks)


@given(st.lists(positive, min_size=1, max_size=50))
def test_logarithmic_axis_holds_all_values_and_has_ticks(values):
    axis = logarithmic_axis(values, decimal_tick)
    assert axis is not None
    assert all(-1e-6 <= axis.position(value) <= 1 + 1e-6 for value in values)
    assert len(axis.ticks) >= 2
    assert all(-1e-6 <= tick.position <= 1 + 1e-6 for tick in axis.ticks)


def test_logarithmic_axis_is_refused_where_a_value_is_zero():
    assert logarithmic_axis([0.0, 1.0], decimal_tick) is None


@given(
    st.lists(st.one_of(st.none(), finite), min_size=1, max_size=3_000),
    st.integers(min_value=4, max_value=200),
)
def test_thinning_keeps_ends_and_extremes_within_the_limit(values, limit):
    kept = thin(values, limit)
    assert kept == sorted(set(kept))
    assert len(kept) <= max(limit, 2)
    assert kept[0] == 0 and kept[-1] == len(values) - 1
    known = [value for value in values if value is not None]
    if known:
        drawn = [values[index] for index in kept if values[index] is not None]
        assert min(drawn) == min(known)
        assert max(drawn) == max(known)


@given(
    st.lists(st.one_of(st.none(), st.floats(0.01, 20.0)), min_size=1, max_size=1_500).filter(any)
)
def test_drawn_points_stay_inside_the_box_and_gaps_stay_gaps(values):
    steps = list(range(1, len(values) + 1))
    line = Line("loss", "main", steps, values, q.loss)
    chart = line_chart("c", "Loss", [line], unit="nats", tick=decimal_tick, log_scale=True)
    assert chart is not None
    for drawing in filter(None, (chart.linear, chart.logarithmic)):
        ((_, path),) = drawing.paths
        numbers = [float(number) for number in re.findall(r"[-\d.]+", path)]
        assert all(-0.1 <= number <= 1000.1 for number in numbers)
    if len(values) <= 600:
        breaks = sum(
            value is not None and (index == 0 or values[index - 1] is None)
            for index, value in enumerate(values)
        )
        assert chart.linear.paths[0][1].count("M") == breaks


def test_bar_heights_are_proportional_to_counts():
    chart = histogram("h", "Length", [1, 50, 100, 150], [10, 0, 40], unit="tokens")
    assert chart is not None
    ((_, path),) = chart.linear.paths
    tops = [float(top) for top in re.findall(r"V([\d.]+)H", path)]
    assert [round((1000 - top) / (1000 - tops[-1]), 3) for top in tops] == [0.25, 1.0]
    assert chart.points["at"] == ["1–50 tokens", "51–100 tokens", "101–150 tokens"]


def test_chart_without_a_finite_value_is_left_out():
    line = Line("loss", "main", [1, 2], [None, None], q.loss)
    assert line_chart("c", "Loss", [line], unit="nats", tick=decimal_tick) is None
    assert histogram("h", "Length", [1, 10], [0], unit="tokens") is None


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=100))
def test_smoothing_is_a_weighted_mean_of_the_past(values):
    """Against the definition, summed term by term."""
    smoothed = smooth(values, 0.8)
    for index in range(len(values)):
        weights = [0.8 ** (index - i) for i in range(index + 1)]
        expected = sum(w * v for w, v in zip(weights, values, strict=False)) / sum(weights)
        assert smoothed[index] == pytest.approx(expected, rel=1e-9)


def test_smoothing_passes_over_what_was_not_finite():
    assert smooth([None, 2.0, None, 2.0], 0.9) == [None, 2.0, 2.0, 2.0]


def test_short_runs_are_not_smoothed_and_long_ones_over_ten_steps():
    assert smooth([4.0, 2.0, 3.0], smoothing(3)) == [4.0, 2.0, 3.0]
    assert smoothing(50) == pytest.approx(1 - 1 / 5)
    assert smoothing(10_000) == pytest.approx(1 - 1 / 10)


def test_step_recorded_twice_counts_once_the_later_record():
    records = [{"step": 2, "loss": 9.0}, {"step": 1, "loss": 1.0}, {"step": 2, "loss": 3.0}]
    assert series(records, "loss") == Series([1, 2], [1.0, 3.0])


def test_sparkline_falls_with_the_loss():
    line = sparkline([8.0, 7.0, None, 4.0, 1.0], 4)
    assert len(line) == 4
    assert line[0] == "█" and line[-1] == "▁"
    assert list(line) == sorted(line, reverse=True)
    assert sparkline([], 10) == ""


def test_text_plot_puts_high_losses_above_low_ones():
    curves = {
        "high": Series(list(range(1, 101)), [3.0] * 100),
        "low": Series(list(range(1, 51)), [1.0] * 50),
    }
    lines = text_plot(curves, width=20, height=5).splitlines()
    assert lines[0].count("A") == 20
    low = next(index for index, line in enumerate(lines) if "B" in line)
    assert 0 < low < 5
    # A run half as long is drawn half as wide.
    assert lines[low].count("B") in (10, 11)
    assert lines[-2].split() == ["A", "high"]


@given(st.floats(min_value=1, max_value=1e14))
def test_written_sizes_are_within_half_a_percent(count):
    number, unit = q.size(count).split(" ")
    scale = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}[unit]
    # Whole bytes are rounded to one; above, three digits are written.
    allowed = 0.5 if unit == "B" else count * 0.00501
    assert math.isclose(float(number) * scale, count, abs_tol=allowed + 1e-9)
    assert len(number.replace(".", "")) <= (3 if unit != "TB" else 4)


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(0.04, "0.0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (3599.7, "1 h 00 min")],
)
def test_durations_carry_over_when_rounded(seconds, written):
    assert q.duration(seconds) == written


def test_change_that_rounds_to_nothing_has_no_minus_sign():
    assert q.change(2.0, 1.9999) == "+0.0 %"
    assert q.change(2.0, 1.0) == "−50.0 %"
    assert q.change(0.0, 1.0) == q.UNKNOWN
