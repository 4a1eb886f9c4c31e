"""Hostile programs: each file beside this one is a submission with its strategy in its docstring.

A file that defines no `create_dataset` gets the honest solution, so that it is accepted where its
attack does nothing. A program that gets what it must not prints ESCAPED; one that shows a hidden
test prints LEAKED.
"""

import ast
import re
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from etude.practice.judge.judge import Judge
from etude.practice.judge.pool import Pool
from etude.practice.judge.sandbox import FIRST_USER
from etude.practice.problem import Limits, Problem, find_problem

FILES = sorted(
    file for file in Path(__file__).parent.glob("*.py") if not file.name.startswith("test_")
)
TENSOR_DATASET = find_problem("create-tensordataset")


@pytest.fixture(scope="module")
def judge():
    with Pool(slots=2) as pool:
        yield Judge(pool)


@pytest.fixture(scope="module")
def judge_of_layers_everywhere():
    """What remains where neither namespaces nor control groups are allowed."""
    with Pool(without=("namespaces", "cgroup")) as pool:
        assert "namespaces" not in pool.level.layers
        yield Judge(pool)


def with_limit(seconds: float) -> Problem:
    limits = Limits(seconds=seconds)
    return replace(TENSOR_DATASET, front=TENSOR_DATASET.front.model_copy(update={"limits": limits}))


# What the judge's own half answers, the same code whatever surrounds a run. The rest is held by the
# sandbox, and by other layers of it where there are no namespaces.
WITHOUT_SANDBOX = {
    "comparison",
    "compiling",
    "exceptions",
    "imports",
    "output",
    "result channel",
    "time",
}


def surface(file: Path) -> str:
    found = re.search(r"^Surface: (.+)$", file.read_text(), flags=re.MULTILINE)
    assert found, f"{file.name} does not say what it attacks"
    return found[1]


# A shorter time, so that a dozen programs that never end do not take a minute each way. A file
# whose own work needs longer says so.
PROBLEM = with_limit(2.0)


def submission(file: Path) -> tuple[str, list[str], Problem]:
    source = file.read_text()
    docstring = ast.get_docstring(ast.parse(source)) or ""
    expected = re.search(r"^Expect: (.+)$", docstring, flags=re.MULTILINE)
    assert expected, f"{file.name} does not say what to expect"
    assert re.match(r"Strategy: .+\n\nSurface: .+", docstring), (
        f"{file.name} does not say what it does"
    )
    if "def create_dataset" not in source:
        source += "\n\n" + PROBLEM.solution
    seconds = re.search(r"^Seconds: (\d+)$", docstring, flags=re.MULTILINE)
    problem = with_limit(float(seconds[1])) if seconds else PROBLEM
    return source, [name.strip() for name in expected[1].split("|")], problem


def attack(judge: Judge, file: Path) -> None:
    source, expected, problem = submission(file)
    verdict = judge.judge(problem, source, seed=7)
    assert verdict.name in expected, verdict
    told = f"{verdict.printed} {verdict.says} {verdict.shown}"
    assert "ESCAPED" not in told, verdict
    assert "LEAKED" not in told, verdict
    # Whoever comes next is judged as if nothing had been.
    assert judge.judge(PROBLEM, PROBLEM.solution).accepted
    assert judge.judge(PROBLEM, PROBLEM.wrong[0][1]).kind != "accepted"


def test_there_are_enough_of_them():
    assert len(FILES) >= 60


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_hostile_program_gets_nothing_and_changes_no_other_verdict(judge: Judge, file: Path):
    attack(judge, file)


def test_surfaces_that_are_no_matter_of_the_sandbox_are_those_of_some_files():
    assert {surface(file) for file in FILES} > WITHOUT_SANDBOX


@pytest.mark.parametrize(
    "file",
    [
        pytest.param(
            file,
            id=file.stem,
            marks=[pytest.mark.slow] if surface(file) in WITHOUT_SANDBOX else [],
        )
        for file in FILES
    ],
)
def test_hostile_program_gets_nothing_without_namespaces(
    judge_of_layers_everywhere: Judge, file: Path
):
    attack(judge_of_layers_everywhere, file)


def test_nothing_is_left_behind_after_all_attacks(judge: Judge):
    """No process but those that wait for a submission."""
    zygote = psutil.Process(judge.pool._zygote.pid)
    family = [zygote, *zygote.children(recursive=True)]
    assert len(family) <= 2 + judge.pool.slots
    # A process of a run whose parent is no zygote has got away from its own.
    strays = [
        process.pid
        for process in psutil.process_iter(["uids", "ppid"])
        if process.info["uids"]
        and FIRST_USER <= process.info["uids"].real < FIRST_USER + 64
        and not _is_zygote(process.info["ppid"])
    ]
    assert not strays


def _is_zygote(pid: int) -> bool:
    try:
        return "judge.zygote import main" in " ".join(psutil.Process(pid).cmdline())
    except psutil.NoSuchProcess:
        return False


def test_no_attack_left_a_file_on_the_host():
    for folder in ("/", "/tmp", "/var/tmp", "/dev/shm", "/root", "/home", "/run"):
        assert not (Path(folder) / "etude_attack").exists()
