"""Two runs compared sample by sample: against exact tests computed another way."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from scipy import stats

from etude.tuning.report.paired import (
    compare_scores,
    corrected,
    holm,
    paired_table,
    paired_test,
    paired_tests,
)
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


@pytest.mark.parametrize(("better", "worse"), [(0, 0), (1, 0), (7, 1), (40, 22), (900, 1000)])
def test_mcnemars_test_is_scipys_exact_binomial_test(better, worse):
    ours = [0.0] * better + [100.0] * worse + [100.0] * 5
    theirs = [100.0] * better + [0.0] * worse + [100.0] * 5
    found = compare_scores("a", "b", "score", ours, theirs).mcnemar
    expected = stats.binomtest(better, better + worse).pvalue if better + worse else 1.0
    assert found == pytest.approx(expected, rel=1e-9)


def test_scores_between_right_and_wrong_have_no_mcnemar_test():
    test = compare_scores("a", "b", "score", [0.0, 30.0], [100.0, 20.0])
    assert test.mcnemar is None
    assert test.decisive == test.p


def step_down(values, level):
    """Holm 1979 as he wrote it: reject the smallest while it is below level / (those left)."""
    rejected = set()
    for rank, place in enumerate(sorted(range(len(values)), key=lambda i: values[i])):
        if values[place] > level / (len(values) - rank):
            break
        rejected.add(place)
    return rejected


@pytest.mark.parametrize("level", [0.01, 0.05, 0.2])
def test_holms_adjusted_values_reject_what_his_procedure_rejects(level):
    generator = np.random.default_rng(1)
    for count in (1, 2, 5, 12):
        for _ in range(50):
            values = generator.beta(0.3, 2.0, count).tolist()
            adjusted = holm(values)
            assert {i for i, p in enumerate(adjusted) if p <= level} == step_down(values, level)
            assert all(p >= value for p, value in zip(adjusted, values, strict=True))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        # statsmodels' multipletests(method="holm") and R's p.adjust print these.
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.02, 0.02, 0.02], [0.06, 0.06, 0.06]),
        ([0.6, 0.001, 0.9], [1.0, 0.003, 1.0]),
        ([0.04], [0.04]),
    ],
)
def test_holms_adjusted_values_are_the_known_ones(values, expected):
    assert holm(values) == pytest.approx(expected)


def test_several_comparisons_are_corrected_and_one_alone_is_not():
    strong = compare_scores("a", "b", "correct", [0.0] * 12, [100.0] * 12)
    weak = compare_scores("a", "c", "correct", [0.0] * 6 + [100.0] * 6, [100.0] * 12)
    (alone,) = corrected([weak])
    assert alone.adjusted is None and alone.differs and "corrected" not in alone.sentence
    first, second, third = corrected([strong, weak, weak])
    assert weak.mcnemar == pytest.approx(0.03125)
    assert (first.differs, second.differs) == (True, False)
    assert second.adjusted == third.adjusted == pytest.approx(0.0625)
    assert "p 0.031, 0.062 corrected for 3 comparisons" in second.sentence
    assert "may be chance" in second.sentence
    table = paired_table([first, second, third])
    assert table.columns[-2:] == ["p, McNemar", "p, Holm"]
    assert table.rows[1][-2:] == ["0.031", "0.062"]


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


def test_every_pair_of_three_runs_is_compared_and_printed(tmp_path, etude_command):
    folders = [RunFolder.create(name, tmp_path) for name in ("one", "two", "three")]
    for folder, right in zip(folders, (2, 9, 12), strict=True):
        folder.write_lines(
            "samples.jsonl", [sample(f"r:{i}", "yes" if i < right else "no") for i in range(12)]
        )
    assert len(paired_tests(folders)) == 2
    tests = paired_tests(folders, every_pair=True)
    assert [test.comparisons for test in tests] == [3, 3, 3]
    assert [test.differs for test in tests] == [True, True, False]
    names = [str(folder.path) for folder in folders]
    told = etude_command("runs", "compare", *names, "--paired")
    assert told.returncode == 0, told.stderr
    assert "p, Holm" in told.stdout and "corrected for 3 comparisons" in told.stdout
    page = tmp_path / "compare.html"
    assert etude_command("runs", "compare", *names, "--html", page).returncode == 0
    assert "corrected for 3 comparisons" in page.read_text()
    (folders[0].path / "samples.jsonl").unlink()
    (folders[1].path / "samples.jsonl").unlink()
    told = etude_command("runs", "compare", *names[:2], "--paired")
    assert told.returncode == 2 and "no two of these runs" in told.stderr
