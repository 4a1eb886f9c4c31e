"""Verdicts by the real sandbox."""

import os
import signal
import threading
import time

import psutil
import pytest

from etude.core.errors import JudgeError
from etude.practice.judge.judge import Judge
from etude.practice.judge.pool import Pool
from etude.practice.judge.sandbox import LAYERS
from etude.practice.problem import FrontMatter, Limits, Problem
from etude.practice.suite import Rng, Suite

HEAD = {
    "id": "00000000",
    "title": "Double",
    "difficulty": "easy",
    "tags": ["doubling"],
    "signature": "def double(x)",
}


@pytest.fixture
def make(tmp_path):
    """A problem whose right answer is twice its argument."""

    def make(suite=None, limits=None, solution="def double(x):\n    return x * 2\n"):
        if suite is None:
            suite = Suite()
            suite.visible("shown")(lambda rng: (rng.randn(2),))
            suite.hidden("kept", note="think of five")(lambda rng: (rng.randn(5),))
        (tmp_path / "solution.py").write_text(solution)
        front = FrontMatter.model_validate({**HEAD, "limits": limits or {}})
        problem = Problem(tmp_path, "double", "pytorch", front, "double")
        problem.__dict__["suite"] = suite
        return problem

    return make


@pytest.mark.parametrize(
    ("source", "verdict"),
    [
        ("def double(x): return x + x", "accepted"),
        ("def double(x): return (x + x).tolist()", "wrong answer: type"),
        ("def double(x): return (x + x)[:1]", "wrong answer: shape"),
        ("def double(x): return (x + x).double()", "wrong answer: dtype"),
        ("def double(x): return x / 0", "wrong answer: not finite"),
        ("def double(x): return x + 1", "wrong answer: values"),
        ("def double(x): return x.mul_(2)", "wrong answer: mutated input"),
        ("def double(x): return undefined", "runtime error"),
        ("def double(x) return x", "compile error"),
        ("def triple(x): return x", "compile error"),
        ("def double(x):\n    while True: pass", "time limit"),
        ("def double(x): return bytearray(1 << 40)", "memory limit"),
        ("def double(x): return open('/etc/passwd').read()", "forbidden operation"),
        ("def double(x):\n    print('x' * 2_000_000)\n    return x * 2", "output limit"),
        ("def double(x): return double(x)", "runtime error"),
        ("raise SystemExit", "runtime error"),
        ("", "compile error"),
        ("\0", "compile error"),
    ],
)
def test_each_kind_of_submission_has_its_verdict(judge, make, source, verdict):
    found = judge.judge(make(limits={"seconds": 1}), source)
    assert found.name == verdict, found
    assert found.says and "\n" not in found.says


@pytest.mark.parametrize(
    ("trouble", "verdict"),
    [
        ("[os.write(1, b'x' * 60_000) for _ in range(99)]", "output limit"),
        ("time.sleep(9)", "time limit"),
        ("os._exit(3)", "runtime error"),
    ],
)
def test_a_run_that_is_ended_says_in_which_test(judge, make, trouble, verdict):
    """Answers that nobody has read yet when it ends count, too."""
    source = f"import os, time\ndef double(x):\n    if len(x) == 5: {trouble}\n    return x * 2"
    found = judge.judge(make(limits={"seconds": 1}), source)
    assert (found.name, found.test, found.passed) == (verdict, "kept", 1), found


def test_too_much_is_too_much_though_all_is_answered(judge, make):
    """Two writes of 60 KB: whether it is ended before its last answer is a matter of luck."""
    flood = "os.write(1, b'x' * 60_000); os.write(1, b'x' * 60_000)"
    source = f"import os\ndef double(x):\n    if len(x) == 5: {flood}\n    return x * 2"
    problem = make()
    assert {judge.judge(problem, source).name for _ in range(12)} == {"output limit"}


def test_a_visible_failure_shows_input_expected_and_got(judge, make):
    verdict = judge.judge(make(), "def double(x): return x")
    assert verdict.test == "shown" and verdict.visible
    assert all(
        "tensor(" in text
        for text in (*verdict.shown.arguments, verdict.shown.expected, verdict.shown.got)
    )


def test_a_hidden_failure_shows_the_kind_and_the_note_only(judge, make):
    verdict = judge.judge(make(), "def double(x): return x * (2 if len(x) == 2 else 3)")
    assert verdict.test == "kept" and not verdict.visible and verdict.shown is None
    assert verdict.note == "think of five" and verdict.passed == 1
    assert "expected" not in verdict.says


def test_an_exception_tells_the_learners_lines_and_no_hidden_message(judge, make):
    source = (
        "def helper(x):\n    raise ValueError(f'secret {x}')\n\n"
        "def double(x):\n    return x * 2 if len(x) == 2 else helper(x)\n"
    )
    verdict = judge.judge(make(), source)
    assert [line.line for line in verdict.lines] == [5, 2]
    assert verdict.says == "ValueError in line 2"
    shown = judge.judge(make(), "def double(x): raise ValueError('told')")
    assert "told" in shown.says


def test_an_expected_exception_is_right_and_a_missing_one_is_wrong(judge, make):
    suite = Suite()
    suite.visible("shown")(lambda rng: (1,))
    suite.hidden("negative", raises=ValueError)(lambda rng: (-1,))
    right = "def double(x):\n    if x < 0: raise ValueError('no')\n    return x * 2\n"
    assert judge.judge(make(suite, solution=right), right).accepted
    assert (
        judge.judge(make(suite, solution=right), "def double(x): return x * 2").name
        == "wrong answer: no exception"
    )
    assert (
        judge.judge(make(suite, solution=right), right.replace("ValueError", "TypeError")).name
        == "runtime error"
    )


def test_an_answer_that_differs_from_call_to_call_is_found(judge, make):
    suite = Suite(deterministic=True)
    suite.visible("shown")(lambda rng: (rng.randn(3),))
    problem = make(suite)
    assert judge.judge(problem, "def double(x): return x * 2").accepted
    wobbly = "import torch\ndef double(x): return x * 2 + torch.rand(3) * 1e-6"
    assert judge.judge(problem, wobbly).name == "wrong answer: not deterministic"


def test_an_argument_that_may_change_may_change(judge, make):
    suite = Suite(mutable=(0,))
    suite.visible("shown")(lambda rng: (rng.randn(3),))
    assert judge.judge(make(suite), "def double(x): return x.mul_(2)").accepted


def test_a_checker_judges_and_is_never_given_another_class(judge, make):
    suite = Suite()
    suite.visible("shown")(lambda rng: (3,))
    seen = []

    @suite.check
    def even(arguments, answer):
        seen.append(answer)
        return None if answer % 2 == 0 else "the answer is odd"

    problem = make(suite)
    assert judge.judge(problem, "def double(x): return 8").accepted
    assert judge.judge(problem, "def double(x): return 7").says == "the answer is odd"
    assert judge.judge(problem, "def double(x): return '7'").name == "wrong answer: type"
    assert seen == [8, 7]


def test_the_same_seed_gives_the_same_verdict_and_another_seed_other_numbers(judge, make):
    problem, wrong = make(), "def double(x): return x"
    one, again, other = (judge.judge(problem, wrong, seed) for seed in (5, 5, 6))
    assert one.shown == again.shown != other.shown


def test_printed_text_of_hidden_tests_is_not_shown(judge, make):
    verdict = judge.judge(make(), "def double(x):\n    print('n =', len(x))\n    return x * 2")
    assert verdict.accepted and verdict.printed == "n = 2\n"


def test_submissions_begin_with_different_random_numbers_each_time(judge, make):
    source = (
        "import random, torch\ndef double(x):\n"
        "    print(random.random(), torch.rand(1).item())\n    return x * 2"
    )
    assert judge.judge(make(), source, 1).printed != judge.judge(make(), source, 2).printed


def test_fifty_steps_of_training_are_judged(judge, make):
    suite = Suite()
    suite.visible("shown")(lambda rng: (rng.randn(64, 4), rng.integers(0, 2, (64,))))
    source = """
import torch
from torch import nn
def double(x, y):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(50):
        loss = nn.functional.cross_entropy(net(x), y)
        optimizer.zero_grad(); loss.backward(); optimizer.step()
    return loss.detach()
"""
    assert judge.judge(make(suite, solution=source), source).accepted


def test_a_layer_that_is_not_there_is_not_pretended():
    with pytest.raises(JudgeError, match="namespaces"):
        Pool(require=("namespaces",), without=("namespaces",))
    with pytest.raises(JudgeError, match="unknown layer"):
        Pool(require=("magic",))


def test_the_level_names_what_is_missing():
    with Pool(without=("cgroup", "namespaces")) as pool:
        assert set(pool.level.layers) | set(pool.level.missing) == set(LAYERS)
        assert "cgroup" in pool.level.missing and "not here" in pool.level.describe()


def test_a_killed_zygote_is_a_fault_of_the_system_and_is_mended(make):
    with Pool() as pool:
        judge, problem = Judge(pool), make(limits={"seconds": 10})
        slow = "import time\ndef double(x):\n    time.sleep(0.4)\n    return x * 2"
        found = []
        thread = threading.Thread(target=lambda: found.append(judge.judge(problem, slow)))
        thread.start()
        time.sleep(0.3)
        for process in psutil.Process(pool._zygote.pid).children(recursive=True):
            process.kill()
        os.kill(pool._zygote.pid, signal.SIGKILL)
        thread.join(60)
        assert found[0].accepted, found[0]
        assert judge.judge(problem, "def double(x): return x").name == "wrong answer: values"


def test_a_run_that_is_killed_from_outside_changes_no_other(make):
    with Pool(slots=2) as pool:
        judge, problem = Judge(pool), make()
        for _ in range(5):
            for process in psutil.Process(pool._zygote.pid).children(recursive=True)[1:]:
                if process.ppid() != pool._zygote.pid:
                    process.kill()
            assert judge.judge(problem, "def double(x): return x * 2").accepted


def test_nothing_runs_after_the_pool_is_closed():
    pool = Pool()
    family = [
        pool._zygote.pid,
        *(child.pid for child in psutil.Process(pool._zygote.pid).children(recursive=True)),
    ]
    pool.close()
    deadline = time.monotonic() + 5
    while any(psutil.pid_exists(pid) for pid in family) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(psutil.pid_exists(pid) for pid in family)


def test_two_slots_judge_at_once_and_do_not_mix(judge, make):
    problem = make()
    right, wrong = "def double(x): return x * 2", "def double(x): return x * 3"
    verdicts = {}

    def one(index):
        verdicts[index] = judge.judge(problem, right if index % 2 else wrong).accepted

    threads = [threading.Thread(target=one, args=(index,)) for index in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verdicts == {index: bool(index % 2) for index in range(24)}


def test_limits_of_a_problem_are_checked_at_the_door():
    with pytest.raises(ValueError, match="seconds"):
        Limits(seconds=0)


def test_random_numbers_are_a_function_of_the_seed():
    assert Rng(1).randn(4).tolist() == Rng(1).randn(4).tolist() != Rng(2).randn(4).tolist()
