"""Paired test of two runs on the samples that both were evaluated on.

Samples differ in difficulty far more than runs do in quality; the difference on the same sample
does not contain that. With d_i = score of the second run − score of the first on sample i:

    mean d, its 95 % interval (percentile bootstrap over samples, Efron 1979), and
    p = share of sign flips ±d_i whose mean is at least as far from 0 (Fisher 1935)

Sign flips are all tried where there are at most 2^14, else drawn by a fixed seed. For answers that
are right or wrong that is McNemar's exact test: only samples on which the runs differ count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from etude.tuning.runs.folder import RunFolder

DRAWS = 10_000
EXHAUSTIVE = 14
"""Samples that differ, up to which every combination of signs is tried."""

FEW = 30
"""With fewer samples the interval is rough."""


@dataclass(frozen=True)
class PairedTest:
    """The second run against the first, on samples that both have."""

    first: str
    second: str
    """Names of the runs."""
    measure: str
    """`score`, 0 to 100, or `correct`, where predictions equal their reference or not."""
    samples: int
    """That both have."""
    better: int
    """Samples on which the second run is better."""
    worse: int
    mean: float
    """Of second − first, in points."""
    low: float
    high: float
    """Bounds of the 95 % interval of the mean."""
    p: float
    """Of a difference as large by chance alone."""

    @property
    def sentence(self) -> str:
        """What follows from it."""
        apart = f"{abs(self.mean):.1f}"
        if not float(apart):
            said = f"{self.second} is as good as {self.first}"
        else:
            how = "better" if self.mean > 0 else "worse"
            said = f"{self.second} is {apart} points {how} than {self.first}"
        said += (
            f" on the {self.samples} samples of both "
            f"(95 % from {self.low:+.1f} to {self.high:+.1f}, p {_p_text(self.p)})"
        )
        if self.p > 0.05 and float(apart):
            said += ": that may be chance"
        return said + ("; few samples, a rough interval" if self.samples < FEW else "")


def paired_test(first: RunFolder, second: RunFolder) -> PairedTest | None:
    """Compare two runs sample by sample.

    Returns:
        None where they have no evaluated sample in common.

    Raises:
        RunError: samples.jsonl of one is damaged.
    """
    ours, theirs = _by_sample(first.read_samples()), _by_sample(second.read_samples())
    common = [key for key in ours if key in theirs]
    for measure in ("score", "correct"):
        pairs = [
            (a, b)
            for key in common
            if (a := _measured(ours[key], measure)) is not None
            and (b := _measured(theirs[key], measure)) is not None
        ]
        if pairs:
            return compare_scores(
                first.name, second.name, measure, [a for a, _ in pairs], [b for _, b in pairs]
            )
    return None


def compare_scores(
    first: str, second: str, measure: str, ours: Sequence[float], theirs: Sequence[float]
) -> PairedTest:
    """Compare two runs by their scores on the same samples.

    Args:
        first: name of the first run.
        second: name of the second.
        measure: what the scores are.
        ours: (N,) of the first, 0 to 100.
        theirs: (N,) of the second.
    """
    differences = np.asarray(theirs, dtype=np.float64) - np.asarray(ours, dtype=np.float64)
    low, high = _interval(differences)
    return PairedTest(
        first,
        second,
        measure,
        samples=len(differences),
        better=int((differences > 0).sum()),
        worse=int((differences < 0).sum()),
        mean=float(differences.mean()),
        low=low,
        high=high,
        p=_sign_flips(differences[differences != 0]),
    )


def _interval(differences: np.ndarray) -> tuple[float, float]:
    """Return the 2.5 and 97.5 % points of means of samples drawn with replacement."""
    generator = np.random.default_rng(0)
    count = len(differences)
    # A piece at a time: all draws of a large set would take gigabytes.
    rows = max(1, 4_000_000 // count)
    means = [
        differences[generator.integers(0, count, (min(rows, DRAWS - done), count))].mean(axis=1)
        for done in range(0, DRAWS, rows)
    ]
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return float(low), float(high)


def _sign_flips(differences: np.ndarray) -> float:
    """Return the two-sided p of the permutation test; 1 where nothing differs."""
    count = len(differences)
    if count == 0:
        return 1.0
    observed = abs(differences.sum())
    # Sums in another order differ in their last bits.
    least = observed * (1 - 1e-12)
    if count <= EXHAUSTIVE:
        signs = np.array(list(product((-1.0, 1.0), repeat=count)))
        sums = signs @ differences
        return float((np.abs(sums) >= least).mean())
    generator = np.random.default_rng(0)
    rows = max(1, 4_000_000 // count)
    as_far = 0
    for done in range(0, DRAWS, rows):
        signs = 1 - 2 * generator.integers(0, 2, (min(rows, DRAWS - done), count))
        as_far += int((np.abs(signs @ differences) >= least).sum())
    # The observed signs are one of them (Phipson and Smyth 2010): p is never 0.
    return (as_far + 1) / (DRAWS + 1)


def _by_sample(records: Sequence[dict[str, Any]]) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Return evaluated samples by what they are: the file alone may have changed in between."""
    return {
        (str(r.get("origin")), str(r.get("prompt")), str(r.get("reference"))): r for r in records
    }


def _measured(record: dict[str, Any], measure: str) -> float | None:
    """Return 0 to 100 for a sample; None where it has no such result."""
    if measure == "score":
        score: Any = record.get("score_after")
        return float(score) if isinstance(score, int | float) else None
    reference, after = record.get("reference"), record.get("after")
    if not isinstance(reference, str) or not isinstance(after, str) or not reference:
        return None
    return 100.0 * (after == reference)


def _p_text(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
