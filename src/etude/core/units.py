"""Formatting of numbers and units, the same in the terminal, in reports and in listings.

Sizes are decimal (1 GB = 10⁹ bytes), as on a disk's label. An unknown value is shown as `–`.
"""

from __future__ import annotations

import math

METHODS = {
    "qlora": "QLoRA",
    "lora": "LoRA",
    "head": "head-only training",
    "full": "full fine-tuning",
}
"""Display names of the fine-tuning methods."""

UNKNOWN = "–"


def size(count: float | None) -> str:
    """Return bytes with three significant digits: `98.2 MB`, `1.12 GB`."""
    if count is None:
        return UNKNOWN
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if abs(value) < 999.5:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} B" if unit == "B" else f"{_three_digits(value)} {unit}"


def number(count: float | None) -> str:
    """Return a whole number with thousands separators: `4,884,480`."""
    return UNKNOWN if count is None else f"{count:,.0f}"


def short_number(count: float | None) -> str:
    """Return a count with three significant digits: `4.88 M`, `8.03 B` (billions)."""
    if count is None:
        return UNKNOWN
    value, unit = float(count), ""
    for larger in ("k", "M", "B"):
        if abs(value) < 999.5:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f}" if not unit else f"{_three_digits(value)} {unit}"


def loss(value: float | None) -> str:
    """Return a loss in nats with three decimals."""
    return UNKNOWN if value is None or not math.isfinite(value) else f"{value:.3f}"


def rate(value: float | None) -> str:
    """Return a learning rate: `1.00e-3`."""
    if value is None:
        return UNKNOWN
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def points(score: float | None) -> str:
    """Return a score out of 100: `27.9`."""
    return UNKNOWN if score is None else f"{score:.1f}"


def percent(share: float | None) -> str:
    """Return a fraction as a percentage: `3.52 %`, `44 %`."""
    if share is None:
        return UNKNOWN
    return f"{share * 100:.2f} %" if abs(share) < 0.0995 else f"{share * 100:.1f} %"


def change(before: float | None, after: float | None) -> str:
    """Return the relative change, signed: `−24.1 %`."""
    if before is None or after is None or before == 0:
        return UNKNOWN
    share = (after - before) / abs(before)
    return f"{signed(share * 100, 1)} %"


def signed(value: float, decimals: int) -> str:
    """Return a number with an explicit sign, using a true minus."""
    text = f"{abs(value):.{decimals}f}"
    return f"{'−' if value < 0 and float(text) else '+'}{text}"


def duration(seconds: float | None) -> str:
    """Return a duration with units: `4 min 52 s`, `2 h 05 min`."""
    if seconds is None or not math.isfinite(seconds):
        return UNKNOWN
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def clock(seconds: float | None) -> str:
    """Return a duration in clock format: `4:52`, `2:05:10`."""
    if seconds is None or not math.isfinite(seconds):
        return UNKNOWN
    whole = round(seconds)
    minutes = f"{whole % 3600 // 60:d}:{whole % 60:02d}"
    return minutes if whole < 3600 else f"{whole // 3600}:{minutes.zfill(5)}"


def _three_digits(value: float) -> str:
    magnitude = abs(value)
    return f"{value:.{0 if magnitude >= 99.95 else 1 if magnitude >= 9.995 else 2}f}"
