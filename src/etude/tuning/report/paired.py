"""Paired test of two runs on the samples that both were evaluated on.

Samples differ in difficulty far more than runs do in quality; the difference on the same sample
does not contain that. With d_i = score of the second run − score of the first on sample i:

    mean d, its 95 % interval (percentile bootstrap over samples, Efron 1979), and
    p = share of sign flips ±d_i whose mean is at least as far from 0 (Fisher 1935)

Sign flips are all tried where there are at most 2^14, else drawn by a fixed seed. For answers that
are right or wrong McNemar's exact test (1947) is the same without draws, and decides: of b + c
samples on which one run alone is right, min(b, c) or fewer by a fair coin, two-sided.

Where several pairs are compared, one of them differs by chance more often than one alone. Holm's
correction (1979) keeps the probability that any does at 5 %: the i-th smallest of m values of p is
multiplied by m − i + 1, and none is smaller than the one before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import Any

import numpy as np

from etude.tuning.report.blocks import Table
from etude.tuning.runs.folder import RunFolder

DRAWS = 10_000
EXHAUSTIVE = 14
"""Samples that differ, up to which every combination of signs is tried."""

SURE = 0.05
"""p up to which a difference is called one."""

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
    """Of a difference as large by chance alone, by permutation."""
    mcnemar: float | None = None
    """The same by McNemar's exact test, for answers that are right or wrong; else None."""
    adjusted: float | None = None
    """By Holm's correction for all comparisons; None where there is one."""
    comparisons: int = 1
    """That it is one of."""

    @property
    def decisive(self) -> float:
        """The p that decides: the exact one if there is one, corrected if there are several."""
        return self.adjusted if self.adjusted is not None else self.uncorrected

    @property
    def uncorrected(self) -> float:
        """The exact p if there is one, else that of the permutation test."""
        return self.mcnemar if self.mcnemar is not None else self.p

    @property
    def differs(self) -> bool:
        """Whether the runs are called different at 5 %."""
        return self.decisive <= SURE

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
            f"(95 % from {self.low:+.1f} to {self.high:+.1f}, p {p_text(self.uncorrected)}"
        )
        if self.adjusted is not None:
            said += f", {p_text(self.adjusted)} corrected for {self.comparisons} comparisons"
        said += ")"
        if not self.differs and float(apart):
            said += ": that may be chance"
        return said + ("; few samples, a rough interval" if self.samples < FEW else "")


def paired_tests(folders: Sequence[RunFolder], *, every_pair: bool = False) -> list[PairedTest]:
    """Compare runs two by two, corrected where there are several comparisons.

    Args:
        folders: the runs.
        every_pair: compare each with each; else each with the first.

    Returns:
        Without the pairs that have no evaluated sample in common.

    Raises:
        RunError: samples.jsonl of one is damaged.
    """
    pairs = (
        combinations(folders, 2) if every_pair else ((folders[0], other) for other in folders[1:])
    )
    return corrected([test for pair in pairs if (test := paired_test(*pair)) is not None])


def corrected(tests: Sequence[PairedTest]) -> list[PairedTest]:
    """Return the tests with Holm's correction for all of them; one alone needs none."""
    if len(tests) < 2:
        return list(tests)
    adjusted = holm([test.uncorrected for test in tests])
    return [
        replace(test, adjusted=p, comparisons=len(tests))
        for test, p in zip(tests, adjusted, strict=True)
    ]


def holm(values: Sequence[float]) -> list[float]:
    """Return the values of p, adjusted by Holm's step-down procedure, in their order."""
    found = [0.0] * len(values)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=lambda place: values[place])):
        highest = max(highest, min(1.0, (len(values) - rank) * values[place]))
        found[place] = highest
    return found


def paired_table(tests: Sequence[PairedTest]) -> Table:
    """Return a row a comparison."""
    exact = any(test.mcnemar is not None for test in tests)
    several = any(test.adjusted is not None for test in tests)
    columns = ["compared", "samples", "better", "worse", "difference", "95 %", "p, permutation"]
    columns += ["p, McNemar"] if exact else []
    columns += ["p, Holm"] if several else []
    rows: list[list[str]] = []
    for test in tests:
        row = [
            f"{test.second} against {test.first}",
            f"{test.samples:,}",
            f"{test.better:,}",
            f"{test.worse:,}",
            f"{test.mean:+.1f}",
            f"{test.low:+.1f} to {test.high:+.1f}",
            p_text(test.p),
        ]
        row += ["" if test.mcnemar is None else p_text(test.mcnemar)] if exact else []
        row += [p_text(test.decisive)] if several else []
        rows.append(row)
    note = "On the samples that both runs were evaluated on; differences in points, for the first."
    if several:
        note += f" Holm's correction is for these {len(tests)} comparisons."
    return Table("Sample by sample", columns, rows, note=note)


def paired_test(first: RunFolder, second: RunFolder) -> PairedTest | None:
    """Compare two runs sample by sample.

    Returns:
        None where they have no evaluated sample in common.

    Raises:
        RunError: samples.jsonl of one is damaged.
    """
    return compare_samples(first.name, second.name, first.read_samples(), second.read_samples())


def compare_samples(
    first: str,
    second: str,
    first_samples: Sequence[dict[str, Any]],
    second_samples: Sequence[dict[str, Any]],
) -> PairedTest | None:
    """Compare two runs by the lines of their samples.jsonl; None where they have none in common."""
    ours, theirs = _by_sample(first_samples), _by_sample(second_samples)
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
                first, second, measure, [a for a, _ in pairs], [b for _, b in pairs]
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
        mcnemar=_mcnemar(ours, theirs),
    )


def _mcnemar(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    """Return the p of McNemar's exact test; None unless all scores are 0 or 100."""
    if not {*ours, *theirs} <= {0.0, 100.0}:
        return None
    pairs = list(zip(ours, theirs, strict=True))
    better, worse = pairs.count((0.0, 100.0)), pairs.count((100.0, 0.0))
    count, tail, term = better + worse, 0, 1
    for fewer in range(min(better, worse) + 1):
        tail += term
        term = term * (count - fewer) // (fewer + 1)
    return min(1.0, 2 * tail / 2**count)


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


def p_text(p: float) -> str:
    """Return a p-value as people read it."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
