"""Text plots of curves in a terminal, with one letter per run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from string import ascii_uppercase

from etude.tuning.report.axis import linear_axis
from etude.tuning.report.chart import decimal_tick
from etude.tuning.report.series import Series


def text_plot(
    curves: Mapping[str, Series],
    width: int = 64,
    height: int = 12,
    *,
    ends: tuple[str, str] | None = None,
    tick: Callable[[float, int], str] = decimal_tick,
    from_zero: bool = False,
) -> str:
    """Draw curves over steps as text: one as dots, several as A, B and so on with a legend.

    A column shows the mean of its range of steps. Later curves cover earlier ones.

    Args:
        curves: curves by name; those without a finite value are omitted.
        width: width of the plot without the axis, in columns.
        height: height of the plot without the axis, in lines.
        ends: labels of the horizontal axis at its first and its last step. None: `0` and `step N`.
        tick: formats a tick of the vertical axis, given its number of decimals.
        from_zero: whether the vertical axis starts at zero.
    """
    drawn = {name: curve for name, curve in curves.items() if curve}
    if not drawn:
        return ""
    means = [_columns(curve, width, _last_step(drawn)) for curve in drawn.values()]
    axis = linear_axis(
        [mean for columns in means for mean in columns.values()], tick, from_zero=from_zero
    )
    rows = [[" "] * width for _ in range(height)]
    letters = ascii_uppercase if len(drawn) > 1 else "•"
    for letter, columns in zip(letters, means, strict=False):
        for column, mean in columns.items():
            rows[round((1 - axis.position(mean)) * (height - 1))][column] = letter
    labels = {round((1 - tick.position) * (height - 1)): tick.label for tick in axis.ticks}
    margin = max(len(label) for label in labels.values())
    lines: list[str] = []
    for index, row in enumerate(rows):
        edge = "┤" if index in labels else "│"
        lines.append(f"{labels.get(index, ''):>{margin}} {edge}{''.join(row)}".rstrip())
    first, last = ends or ("0", f"step {_last_step(drawn):,}")
    lines.append(f"{'':>{margin}} └{'─' * width}")
    lines.append(f"{'':>{margin}}  {first}{last:>{width - len(first)}}")
    if len(drawn) > 1:
        lines += [f"{'':>{margin}}  {a} {name}" for a, name in zip(letters, drawn, strict=False)]
    return "\n".join(lines)


def _last_step(curves: Mapping[str, Series]) -> int:
    return max(curve.steps[-1] for curve in curves.values())


def _columns(curve: Series, width: int, last_step: int) -> dict[int, float]:
    """Return the mean of the finite values that fall into each column."""
    sums: dict[int, tuple[float, int]] = {}
    for step, value in zip(curve.steps, curve.values, strict=True):
        if value is None:
            continue
        column = min(width - 1, step * width // max(1, last_step))
        total, count = sums.get(column, (0.0, 0))
        sums[column] = (total + value, count + 1)
    return {column: total / count for column, (total, count) in sums.items()}
