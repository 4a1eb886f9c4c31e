"""Comparison of an answer with the expected one: type, shape, dtype, finiteness, then values.

Both sides are plain data (`protocol.decode`), so no code of the submission runs here. A value
is correct where |got − expected| ≤ atol + rtol·|expected|, element by element, in float64.
Nothing is broadcast, and a NaN is correct only where a NaN is expected.
"""

# What torch, NumPy and others leave untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch

from etude.practice.protocol import Dataset, Foreign


@dataclass(frozen=True)
class Tolerance:
    """Tolerance of floating-point values: |got − expected| ≤ atol + rtol·|expected|."""

    rtol: float = 1e-4
    atol: float = 1e-6


@dataclass(frozen=True)
class Mismatch:
    """Difference between an answer and the expected one."""

    kind: str
    """`type`, `shape`, `dtype`, `not finite` or `values`."""
    says: str
    """One sentence for the learner. It may contain expected values."""
    brief: str
    """The same without expected values, for hidden tests."""


def compare(
    got: Any, expected: Any, tolerance: Tolerance, name: str = "the answer"
) -> Mismatch | None:
    """Return how `got` differs from `expected`, or None."""
    if _class(got) != _class(expected):
        says = f"{name} is {_article(got)}, expected {_article(expected)}"
        return Mismatch("type", says, says)
    if isinstance(expected, torch.Tensor):
        return _tensors(got, expected, tolerance, name)
    if isinstance(expected, np.ndarray | np.generic):
        return _arrays(np.asarray(got), np.asarray(expected), tolerance, name)
    if isinstance(expected, Dataset):
        return _datasets(got, expected, tolerance, name)
    if isinstance(expected, dict):
        return _dicts(
            cast("dict[Any, Any]", got), cast("dict[Any, Any]", expected), tolerance, name
        )
    if isinstance(expected, list | tuple) and not isinstance(expected, torch.Size):
        return _sequences(got, cast("Any", expected), tolerance, name)
    if isinstance(expected, float):
        return _numbers(got, expected, tolerance, name)
    if got == expected:
        return None
    kind = "shape" if isinstance(expected, torch.Size) else "values"
    return Mismatch(
        kind,
        f"{name} is {_short(got)}, expected {_short(expected)}",
        f"{name} is not as expected",
    )


def _class(value: Any) -> str:
    if isinstance(value, Foreign):
        return f"foreign {value.name}"
    if isinstance(value, torch.nn.Parameter):
        return "Parameter"
    if isinstance(value, np.generic):
        return "numpy scalar"
    return type(value).__name__


def _article(value: Any) -> str:
    """Return the name of a value's class with its article."""
    names = {
        "NoneType": "None",
        "Tensor": "a torch.Tensor",
        "Parameter": "a torch.nn.Parameter",
        "ndarray": "a numpy.ndarray",
        "Dataset": "a TensorDataset",
        "Size": "a torch.Size",
        "numpy scalar": f"a NumPy scalar ({type(value).__name__})",
    }
    if isinstance(value, Foreign):
        return f"of the class {value.name}"
    name = _class(value)
    return names.get(name, f"{'an' if name[0] in 'aeiou' else 'a'} {name}")


def _short(value: Any, most: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= most else text[: most - 1] + "…"


_NUMPY_FLOATS = (torch.float16, torch.float32, torch.float64, torch.complex64, torch.complex128)


def _tensors(
    got: torch.Tensor, expected: torch.Tensor, tolerance: Tolerance, name: str
) -> Mismatch | None:
    if got.shape != expected.shape:
        says = f"{name} has the shape {tuple(got.shape)}, expected {tuple(expected.shape)}"
        return Mismatch("shape", says, says)
    if got.dtype != expected.dtype:
        says = f"{name} is of {got.dtype}, expected {expected.dtype}"
        return Mismatch("dtype", says, says)
    exact = not (expected.dtype.is_floating_point or expected.dtype.is_complex)
    if expected.dtype not in _NUMPY_FLOATS and not exact:
        got, expected = got.double(), expected.double()
    ours, theirs = got.numpy(force=True), expected.numpy(force=True)
    if exact:  # int64 does not fit into float64
        return _elements(ours, theirs, None, name)
    # NumPy converts on one thread, torch on all, so that workers would wait for each other.
    wide = np.complex128 if expected.dtype.is_complex else np.float64
    return _elements(ours.astype(wide), theirs.astype(wide), tolerance, name)


def _arrays(got: Any, expected: Any, tolerance: Tolerance, name: str) -> Mismatch | None:
    if got.shape != expected.shape:
        says = f"{name} has the shape {got.shape}, expected {expected.shape}"
        return Mismatch("shape", says, says)
    if got.dtype != expected.dtype:
        says = f"{name} is of {got.dtype}, expected {expected.dtype}"
        return Mismatch("dtype", says, says)
    if expected.dtype.kind not in "fc":
        return _elements(got, expected, None, name)
    wide = np.complex128 if expected.dtype.kind == "c" else np.float64
    return _elements(got.astype(wide), expected.astype(wide), tolerance, name)


def _elements(got: Any, expected: Any, tolerance: Tolerance | None, name: str) -> Mismatch | None:
    """Compare element by element; without a tolerance exactly."""
    if tolerance is not None:
        odd = ~np.isfinite(got) & ~_same(got, expected)
        if odd.any():
            where = _place(odd)
            value = got[where] if where else got[()]
            says = f"{name} is {value} at {_at(where)}, where a finite number is expected"
            return Mismatch("not finite", says, f"{name} has values that are not finite")
    wrong = got != expected if tolerance is None else differing(got, expected, tolerance)
    if not wrong.any():
        return None
    where = _place(wrong)
    count, total = int(wrong.sum()), int(wrong.size)
    share = "its value differs" if total == 1 else f"{count} of {total} values differ"
    found = f"it is {_number(got[where])}, expected {_number(expected[where])}"
    says = f"{name}: {share}; at {_at(where)} {found}"
    return Mismatch("values", says, f"{name}: {share}")


def differing(got: Any, expected: Any, tolerance: Tolerance) -> Any:
    """Return where two arrays of one shape, in float64 or complex128, are not close."""
    with np.errstate(invalid="ignore", over="ignore"):
        close = np.abs(got - expected) <= tolerance.atol + tolerance.rtol * np.abs(expected)
    return ~(close | _same(got, expected))


def _same(got: Any, expected: Any) -> Any:
    """Return where both are the same infinity or both NaN, or equal anyhow."""
    return (got == expected) | (np.isnan(got) & np.isnan(expected))


def _place(wrong: Any) -> tuple[int, ...]:
    return tuple(int(index) for index in np.argwhere(wrong)[0])


def _at(where: tuple[int, ...]) -> str:
    return "its only value" if not where else f"[{', '.join(map(str, where))}]"


def _number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, np.floating) else str(value)


def _numbers(got: float, expected: float, tolerance: Tolerance, name: str) -> Mismatch | None:
    if math.isnan(expected) and math.isnan(got):
        return None
    if not math.isfinite(got) and got != expected:
        return Mismatch(
            "not finite", f"{name} is {got}, expected {expected:.6g}", f"{name} is not finite"
        )
    if got == expected or abs(got - expected) <= tolerance.atol + tolerance.rtol * abs(expected):
        return None
    return Mismatch(
        "values",
        f"{name} is {got:.6g}, expected {expected:.6g}",
        f"{name} is not the expected number",
    )


def _datasets(got: Dataset, expected: Dataset, tolerance: Tolerance, name: str) -> Mismatch | None:
    if len(got.tensors) != len(expected.tensors):
        says = f"{name} holds {len(got.tensors)} tensors, expected {len(expected.tensors)}"
        return Mismatch("shape", says, says)
    for index, (one, other) in enumerate(zip(got.tensors, expected.tensors, strict=True)):
        mismatch = compare(one, other, tolerance, f"tensor {index} of {name}")
        if mismatch:
            return mismatch
    if got.length != expected.length:
        return Mismatch(
            "values",
            f"{name} has {got.length} samples, expected {expected.length}",
            f"{name} has the wrong number of samples",
        )
    return None


def _dicts(
    got: dict[Any, Any], expected: dict[Any, Any], tolerance: Tolerance, name: str
) -> Mismatch | None:
    if missing := [key for key in expected if key not in got]:
        says = f"{name} lacks the key {missing[0]!r}"
        return Mismatch("shape", says, f"{name} lacks a key")
    if extra := [key for key in got if key not in expected]:
        says = f"{name} has a key that is not expected, {_short(extra[0])}"
        return Mismatch("shape", says, says)
    for key, value in expected.items():
        mismatch = compare(got[key], value, tolerance, f"{name}[{key!r}]")
        if mismatch:
            return mismatch
    return None


def _sequences(got: Any, expected: Any, tolerance: Tolerance, name: str) -> Mismatch | None:
    if len(got) != len(expected):
        says = f"{name} has {len(got)} items, expected {len(expected)}"
        return Mismatch("shape", says, says)
    for index, (one, other) in enumerate(zip(got, expected, strict=True)):
        mismatch = compare(one, other, tolerance, f"item {index} of {name}")
        if mismatch:
            return mismatch
    return None
