"""Two runs compared sample by sample: against exact tests computed another way."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest

from etude.tuning.report.paired import compare_scores, paired_test
from etude.tuning.runs.folder import RunFolder


def binomial_p(better: int, worse: int) -> float:
    """McNemar's exact test, two-sided."""
    count, fewer = better + worse, min(better, worse)
    tail = sum(comb(count, k) for k in range(fewer + 1)) / 2**count
    return min(1.0, 2 * tail)


@pytest.mark.parametrize(
    ("better", "worse", "equal"), [(7, 1, 20), (3, 3, 4), (9, 0, 0), (1, 5, 2)]
)
def test_right_and_wrong_answers_are_compared_by_mcnemars_exact_test(better, worse, equal):
    ours = [0.0] * better + [100.0] * worse + [100.0] * equal
    theirs = [100.0] * better + [0.0] * worse + [100.0] * equal
    test = compare_scores("a", "b", "correct", ours, theirs)
    assert (test.better, test.worse, test.samples) == (better, worse, better + worse + equal)
    assert test.p == pytest.approx(binomial_p(better, worse), rel=1e-12)
    assert test.mean == pytest.approx(100 * (better - worse) / test.samples)


def test_many_samples_agree_with_the_exact_test_within_the_error_of_the_draws():
    better, worse = 40, 22
    ours = [0.0] * better + [100.0] * worse
    theirs = [100.0] * better + [0.0] * worse
    exact = binomial_p(better, worse)
    p = compare_scores("a", "b", "correct", ours, theirs).p
    # Four standard errors of a share of 10,000 draws.
    assert abs(p - exact) < 4 * (exact * (1 - exact) / 10_000) ** 0.5


def test_the_interval_is_that_of_the_mean_for_many_samples():
    generator = np.random.default_rng(3)
    ours = generator.uniform(0, 100, 4000)
    theirs = ours + generator.normal(2.0, 10.0, 4000)
    test = compare_scores("a", "b", "score", ours.tolist(), theirs.tolist())
    half = 1.96 * (theirs - ours).std(ddof=1) / 4000**0.5
    # Percentiles of 10,000 draws are within some 3 % of the width.
    assert test.low == pytest.approx(test.mean - half, abs=0.1 * half)
    assert test.high == pytest.approx(test.mean + half, abs=0.1 * half)
    assert test.p < 0.001 and "may be chance" not in test.sentence


def test_equal_runs_differ_by_nothing():
    test = compare_scores("a", "b", "score", [50.0, 20.0], [50.0, 20.0])
    assert (test.mean, test.low, test.high, test.p) == (0.0, 0.0, 0.0, 1.0)
    assert test.sentence.startswith("b is as good as a on the 2 samples of both")
    assert "better" not in test.sentence and "few samples" in test.sentence


def test_a_small_difference_is_named_and_may_be_chance():
    test = compare_scores("a", "b", "score", [50.0, 20.0], [52.0, 19.0])
    assert test.sentence.startswith("b is 0.5 points better than a")
    assert "may be chance" in test.sentence


def sample(name: str, after: str, reference: str = "yes", **more) -> dict:
    return {"origin": name, "prompt": f"p {name}", "reference": reference, "after": after, **more}


def test_samples_that_both_runs_have_are_paired_by_what_they_are(tmp_path):
    first, second = RunFolder.create("first", tmp_path), RunFolder.create("second", tmp_path)
    assert paired_test(first, second) is None
    first.write_lines("samples.jsonl", [sample("r:1", "no"), sample("r:2", "yes")])
    second.write_lines(
        "samples.jsonl",
        [sample("r:2", "yes"), sample("r:1", "yes"), sample("r:3", "no")],
    )
    test = paired_test(first, second)
    assert (test.measure, test.samples, test.better, test.worse) == ("correct", 2, 1, 0)
    assert test.mean == 50.0
    # The same row of a file that was changed is another sample.
    second.write_lines("samples.jsonl", [sample("r:1", "yes", reference="no")])
    assert paired_test(first, second) is None
    scored = [sample("r:1", "x", score_after=30.0), sample("r:2", "y", score_after=10.0)]
    first.write_lines("samples.jsonl", scored)
    second.write_lines("samples.jsonl", [{**one, "score_after": 20.0} for one in scored])
    test = paired_test(first, second)
    assert (test.measure, test.mean) == ("score", 0.0)
