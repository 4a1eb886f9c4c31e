"""Every problem of the shelf, by the linter; and the linter, by problems that are damaged."""

import shutil
import subprocess
import sys
import sysconfig
import zipfile

import pytest

from etude.core.errors import ProblemError
from etude.practice.bundle import export_problems, import_problems
from etude.practice.diagnose import diagnose
from etude.practice.judge.judge import Judge
from etude.practice.judge.pool import Pool
from etude.practice.lint import lint
from etude.practice.problem import find_problem, load_problem, load_shelf
from etude.practice.scaffold import new_problem

SHELF = load_shelf()


@pytest.fixture(scope="session")
def older_numpy(tmp_path_factory):
    """A judge whose submissions meet NumPy 2.0, beside the one installed."""
    folder = tmp_path_factory.mktemp("numpy") / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (packages,) = folder.glob("lib/*/site-packages")
    installed = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--target",
            packages,
            "numpy==2.0.2",
        ],
        capture_output=True,
        text=True,
    )
    if installed.returncode:
        pytest.skip(f"NumPy 2.0.2 cannot be installed: {installed.stderr.strip()[-200:]}")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    with Pool(python=str(folder / "bin" / "python")) as pool:
        yield Judge(pool)


@pytest.mark.parametrize("problem", SHELF, ids=lambda problem: problem.slug)
def test_a_problem_keeps_what_it_promises(judge, problem):
    assert [str(finding) for finding in lint(problem, judge)] == []


@pytest.mark.slow
@pytest.mark.parametrize("problem", SHELF, ids=lambda problem: problem.slug)
def test_a_solution_passes_with_an_older_numpy(older_numpy, problem):
    verdict = older_numpy.judge(problem, problem.solution, 11)
    assert verdict.accepted, verdict


@pytest.mark.slow
def test_the_older_numpy_is_the_one_that_is_met(older_numpy, tensor_dataset):
    source = "import numpy\nprint(numpy.__version__)\n" + tensor_dataset.solution
    assert older_numpy.judge(tensor_dataset, source).printed == "2.0.2\n"


def test_identities_are_unique():
    assert (
        len({problem.front.id for problem in SHELF})
        == len({problem.slug for problem in SHELF})
        == len(SHELF)
    )


@pytest.fixture
def copy(tmp_path, tensor_dataset):
    folder = tmp_path / "pytorch" / "create-tensordataset"
    shutil.copytree(tensor_dataset.folder, folder)

    def change(name, old, new):
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    change.folder = folder
    return change


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        ("solution.py", "raise ValueError", "raise TypeError", "TypeError"),
        (
            "wrong/squeezed.py",
            "expect: wrong answer: shape",
            "expect: wrong answer: values",
            "judged wrong answer: shape",
        ),
        ("wrong/squeezed.py", ".squeeze(-1)", "", "judged accepted"),
        ("wrong/squeezed.py", "# expect", "# hope", "first line"),
        ("hints.md", "## What goes wrong", "What goes wrong", "3 hints"),
        ("tests.py", 'edge="N = 1"', "edge=None", "'N = 1'"),
        (
            "tests.py",
            '@suite.visible("three samples',
            '@suite.hidden("three samples',
            "does not work",
        ),
        ("problem.md", "ValueError", "error", "ValueError"),
        ("problem.md", "def create_dataset(features", "def create_dataset(inputs", "`inputs`"),
        ("problem.md", "## Constraints", "## Rules", "Constraints"),
        ("problem.md", "$(N, F)$", "$(N, F)", "unclosed"),
        (
            "problem.md",
            "A training loop wants pairs",
            "See [this](http://example.com) pair",
            "https",
        ),
        (
            "tests.py",
            "return rng.randn(1, 4)",
            "import os\n    return rng.randn(1, 4) * os.urandom(1)[0]",
            "same seed",
        ),
        (
            "explanation.md",
            "Nothing is copied.",
            "Nothing "
            + "of the fundamentally multidimensional representation " * 40
            + "is copied.",
            "hard to read",
        ),
    ],
)
def test_the_linter_finds_a_damaged_problem(judge, copy, file, old, new, says):
    copy(file, old, new)
    if says == "does not work":
        copy(file, '@suite.visible("more', '@suite.hidden("more')
        says = "no visible test"
    found = [str(finding) for finding in lint(load_problem(copy.folder), judge)]
    assert any(says in finding for finding in found), found


def test_the_linter_finds_tests_that_zeros_pass(judge, tmp_path):
    folder = new_problem(tmp_path, "llm", "small-numbers")
    (folder / "explanation.md").write_text("Words that teach. " * 60)
    tests = (folder / "tests.py").read_text()
    assert lint(load_problem(folder), judge) == []
    (folder / "tests.py").write_text(tests.replace("rng.randn(", "1e-6 * rng.randn("))
    found = [str(finding) for finding in lint(load_problem(folder), judge)]
    assert any("zeros pass every test" in finding for finding in found)


def test_a_zip_brings_problems_over_as_they_are(tmp_path, tensor_dataset):
    export_problems([tensor_dataset], tmp_path / "a.zip")
    (problem,) = import_problems(tmp_path / "a.zip", tmp_path / "shelf")
    assert problem.solution == tensor_dataset.solution and problem.wrong == tensor_dataset.wrong
    with pytest.raises(ProblemError, match="already exists"):
        import_problems(tmp_path / "a.zip", tmp_path / "shelf")


@pytest.mark.parametrize(
    "name",
    [
        "../evil.py",
        "/etc/x",
        "llm/x/../../../y",
        "llm/x/tests.pyc",
        "llm/x/.hidden",
        "llm\\x\\tests.py",
    ],
)
def test_a_zip_that_leaves_the_shelf_is_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(name, "x")
    with pytest.raises(ProblemError, match="not a file of a problem"):
        import_problems(tmp_path / "a.zip", tmp_path / "shelf")
    assert not (tmp_path / "shelf").exists()


def test_names_are_suggested():
    with pytest.raises(ProblemError, match="create-tensordataset"):
        find_problem("create-tensor-dataset")


def test_a_diagnosis_points_at_the_line_and_the_smallest_input(judge, tensor_dataset):
    source = {name: text for name, text, _ in tensor_dataset.wrong}["squeezed.py"]
    found = diagnose(tensor_dataset, source, judge.judge(tensor_dataset, source))
    assert "squeeze" in found.causes[0] and "one feature" in found.where and found.note
    silent = (
        "def create_dataset(features, labels):\n    if len(features) == len(labels):\n"
        "        print(1)\n    else:\n        raise ValueError\n"
    )
    found = diagnose(tensor_dataset, silent, judge.judge(tensor_dataset, silent))
    assert (
        "prints instead" in found.causes[0]
        and found.smallest is not None
        and len(found.failing) > 5
    )
