"""Lays out an expected answer and the one that was given, part by part, with what differs marked.

A part is one array, or one other value, of the answer. Of a large array a window is shown: the
two-dimensional slice, and within it the rows and columns, around the first entry that differs.
"""

# What torch, NumPy and others leave untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false
from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from typing import Any, cast

import numpy as np
import torch

from etude.practice.compare import Tolerance, compare, differing
from etude.practice.judge.verdict import Grid, Part
from etude.practice.protocol import Dataset, Foreign

MOST_PARTS = 6
ROWS, COLUMNS = 8, 6
"""Of an array that is shown; two fit side by side."""
INPUT_ROWS = 4
MOST_TEXT = 400
_MISSING = object()


def inputs(arguments: list[Any], names: list[str]) -> list[Part]:
    """Return the arguments of a call, laid out."""
    return [
        Part(name, got=_alone(value, INPUT_ROWS))
        for name, value in zip(names, arguments, strict=True)
    ][:MOST_PARTS]


def parts(expected: Any, got: Any, tolerance: Tolerance | None) -> list[Part]:
    """Return the parts of an answer beside those expected.

    Args:
        expected: the right answer, or one of them.
        got: the answer that was given.
        tolerance: of floating-point values; None if nothing can be said entry by entry, because
            other answers are right, too.
    """
    laid_out = [_part(title, one, other, tolerance) for title, one, other in _walk(expected, got)]
    if len(laid_out) > MOST_PARTS:
        # Those that differ matter more; both kinds keep their order.
        laid_out.sort(key=lambda part: not part.differs)
    return laid_out[:MOST_PARTS]


def _walk(expected: Any, got: Any, title: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield (title, expected, got) of each part of two values of one kind."""
    if isinstance(expected, Dataset) and isinstance(got, Dataset):
        for index, (one, other) in enumerate(
            zip_longest(expected.tensors, got.tensors, fillvalue=_MISSING)
        ):
            yield from _walk(one, other, _joined(title, f"tensor {index} of the dataset"))
        if expected.length != got.length:
            yield _joined(title, "length of the dataset"), expected.length, got.length
    elif isinstance(expected, dict) and isinstance(got, dict):
        one, other = cast("dict[Any, Any]", expected), cast("dict[Any, Any]", got)
        for key in [*one, *(key for key in other if key not in one)]:
            yield from _walk(
                one.get(key, _MISSING), other.get(key, _MISSING), _joined(title, str(key)[:80])
            )
    elif _is_sequence(expected) and _is_sequence(got) and type(expected) is type(got):
        if _array(expected) is not None and _array(got) is not None:
            yield title, expected, got
            return
        ours, theirs = cast("list[Any]", got), cast("list[Any]", expected)
        for index, (one, other) in enumerate(zip_longest(theirs, ours, fillvalue=_MISSING)):
            yield from _walk(one, other, _joined(title, f"item {index}"))
    else:
        yield title, expected, got


def _joined(title: str, more: str) -> str:
    return f"{title}, {more}" if title else more


def _is_sequence(value: Any) -> bool:
    return isinstance(value, list | tuple) and not isinstance(value, torch.Size)


def _part(title: str, expected: Any, got: Any, tolerance: Tolerance | None) -> Part:
    if expected is _MISSING or got is _MISSING:
        differs = tolerance is not None
        return Part(title, *(_alone(one) for one in (expected, got)), differs=differs)
    differs = tolerance is not None and compare(got, expected, tolerance) is not None
    ours, theirs = _array(got), _array(expected)
    if ours is None or theirs is None:
        return Part(title, _alone(expected), _alone(got), differs=differs)
    wrong = None
    if differs and ours.shape == theirs.shape and tolerance is not None:
        exact = theirs.dtype.kind not in "fc"
        wide = np.complex128 if theirs.dtype.kind == "c" else np.float64
        if exact:
            wrong = ours != theirs
        else:
            wrong = differing(ours.astype(wide), theirs.astype(wide), tolerance)
    window = _window(theirs.shape, wrong)
    return Part(
        title,
        _grid(theirs, window, wrong, _kind(expected), beside=ours),
        _grid(ours, window if ours.shape == theirs.shape else None, wrong, _kind(got), theirs),
        differs=differs,
    )


def _alone(value: Any, most_rows: int = ROWS) -> Grid | str:
    if value is _MISSING:
        return "nothing"
    return _grid(_array(value), None, None, _kind(value), most_rows=most_rows) or _text(value)


def _text(value: Any) -> str:
    if isinstance(value, Foreign):
        return f"an object of the class {value.name}"
    text = repr(value)
    return text if len(text) <= MOST_TEXT else text[:MOST_TEXT] + " …"


def _kind(value: Any) -> str:
    """Return the name of an array's class and type: `torch.float32`, `NumPy float32`, `list`."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype)
    if isinstance(value, np.ndarray | np.generic):
        return f"NumPy {value.dtype}"
    return type(value).__name__


def _array(value: Any) -> Any:
    """Return a tensor, an array, or a sequence of numbers as a NumPy array; None for others."""
    if isinstance(value, torch.Tensor):
        tensor = value.detach()
        if tensor.dtype == torch.bfloat16:
            tensor = tensor.float()
        return tensor.numpy(force=True)
    if isinstance(value, np.ndarray):
        return value if value.dtype.kind in "biufc" else None
    if _is_sequence(value) and value and all(type(one) in (int, float, bool) for one in value):
        try:
            array = np.asarray(value)
        except (OverflowError, ValueError):
            return None
        return array if array.dtype.kind in "biuf" else None
    return None


Window = tuple[tuple[int, ...], int, int]
"""Leading indices of the slice, its first row, its first column."""


def _window(shape: tuple[int, ...], wrong: Any) -> Window:
    """Return where to look at an array: around its first entry that differs, or at its start."""
    first = (0,) * len(shape)
    if wrong is not None and wrong.any():
        first = tuple(int(index) for index in np.argwhere(wrong)[0])
    leading = first[:-2]
    row = _start(first[-2], shape[-2], ROWS) if len(shape) > 1 else 0
    column = _start(first[-1], shape[-1], COLUMNS) if shape else 0
    return leading, row, column


def _start(index: int, length: int, most: int) -> int:
    return 0 if length <= most else max(0, min(index - most // 2, length - most))


def _grid(
    array: Any,
    window: Window | None,
    wrong: Any,
    kind: str = "",
    beside: Any = None,
    most_rows: int = ROWS,
) -> Grid | None:
    """Return a window of an array as rows of cells; None if there is no array."""
    if array is None:
        return None
    shape = tuple(int(length) for length in array.shape)
    leading, row, column = window or _window(shape, None)
    if 0 in shape:
        return Grid(list(shape), kind, [], [], [], [], "")
    part, marks = array, wrong
    other = beside if beside is not None and beside.shape == array.shape else None
    if leading:
        part, marks = part[leading], None if marks is None else marks[leading]
        other = None if other is None else other[leading]
    rows = range(row, min(row + most_rows, shape[-2])) if len(shape) > 1 else range(1)
    columns = range(column, min(column + COLUMNS, shape[-1])) if shape else range(1)

    def at(values: Any, i: int, j: int) -> Any:
        return values[i, j] if len(shape) > 1 else values[j] if shape else values[()]

    cells: list[list[str]] = []
    marked: list[list[bool]] = []
    digits = _digits(part, [(i, j) for i in rows for j in columns], at)
    for i in rows:
        marked.append([marks is not None and bool(at(marks, i, j)) for j in columns])
        line: list[str] = []
        for j, is_wrong in zip(columns, marked[-1], strict=True):
            text = _number(at(part, i, j), digits)
            if is_wrong and other is not None and text == _number(at(other, i, j), digits):
                text = f"{at(part, i, j):.9g}"  # the difference must be seen
            line.append(text)
        cells.append(line)
    place = ", ".join([*(str(index) for index in leading), ":", ":"]) if leading else ""
    return Grid(
        list(shape),
        kind,
        cells,
        marked,
        list(rows) if len(shape) > 1 else [],
        list(columns) if shape else [],
        f"[{place}]" if place else "",
    )


def _digits(array: Any, places: list[tuple[int, int]], at: Any) -> int | None:
    """Return decimals that suit all entries shown; None where whole numbers or powers do."""
    if array.dtype.kind != "f":
        return None
    values = [float(at(array, i, j)) for i, j in places]
    finite = [abs(value) for value in values if np.isfinite(value)]
    largest = max(finite, default=0.0)
    smallest = min((value for value in finite if value), default=1.0)
    if largest >= 1e6 or smallest < 1e-4:
        return None
    if all(value == int(value) for value in finite):
        return 1
    return 4 if largest < 1000 else 2


def _number(value: Any, digits: int | None) -> str:
    if isinstance(value, np.floating):
        return f"{value:.4g}" if digits is None else f"{value:.{digits}f}"
    if isinstance(value, np.complexfloating):
        return f"{value:.4g}"
    return str(value)
