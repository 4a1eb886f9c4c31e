"""Docstring pairs: the answer is not in the prompt, held-out code is not in training."""

from __future__ import annotations

import ast
import subprocess
import sys
import sysconfig
from collections import Counter
from pathlib import Path

import pytest

from etude.core.errors import DataError
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.duplicates import NearDuplicates, jaccard
from etude.tuning.data.functions import python_files, read_functions, summary_line
from etude.tuning.data.schema import DataSplit, Sample
from etude.tuning.data.sources.docstrings import load_docstrings

STDLIB = Path(sysconfig.get_path("stdlib"))


def draw(seed: int = 0, **fields) -> DataSplit:
    return load_docstrings(DataSpec(kind="docstrings", **fields), seed)


@pytest.fixture(scope="module")
def stdlib_and_rich() -> DataSplit:
    """Train on the standard library and PyTorch's helpers, evaluate on rich and httpx."""
    return draw(
        packages=["stdlib", "numpy"], eval_packages=["rich", "httpx"], max_train=250, max_eval=60
    )


def source_of(sample: Sample) -> str:
    code = sample.messages[-2].content
    assert code.startswith("```python\n") and code.endswith("\n```")
    return code.removeprefix("```python\n").removesuffix("\n```")


def original(sample: Sample, root: Path) -> ast.FunctionDef | ast.AsyncFunctionDef:
    """Find the function that a sample was made of, in its file."""
    path, _, line = sample.origin.rpartition(":")
    tree = ast.parse((root / path).read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            start = min([node.lineno, *(item.lineno for item in node.decorator_list)])
            if start == int(line):
                return node
    raise AssertionError(sample.origin)


def spaceless(tree: ast.AST) -> str:
    return "".join(ast.dump(tree).replace("\\n", "").replace("\\t", "").split())


def test_the_prompt_is_the_function_without_its_docstring(stdlib_and_rich):
    ours = [s for s in stdlib_and_rich.train if s.origin.startswith(STDLIB.name)]
    assert len(ours) > 100
    for sample in ours:
        node = original(sample, STDLIB.parent)
        docstring = ast.get_docstring(node)
        assert docstring
        shown = ast.parse(source_of(sample)).body[0]
        assert isinstance(shown, type(node)) and ast.get_docstring(shown) is None
        node.body = node.body[1:]
        assert spaceless(shown) == spaceless(node), sample.origin


def test_the_answer_is_the_summary_and_is_not_in_the_prompt(stdlib_and_rich):
    for sample in stdlib_and_rich.train + stdlib_and_rich.eval:
        answer = sample.messages[-1].content
        assert answer.endswith(".") and "\n" not in answer and 3 <= len(answer.split()) <= 25
        words = answer.lower().rstrip(".").split()
        assert " ".join(words) not in " ".join(source_of(sample).lower().split())


def test_held_out_packages_are_in_no_training_sample(stdlib_and_rich):
    def packages(samples: list[Sample]) -> set[str]:
        return {sample.origin.split("/")[0] for sample in samples}

    assert packages(stdlib_and_rich.eval) == {"rich", "httpx"}
    assert packages(stdlib_and_rich.train) == {STDLIB.name, "numpy"}


def test_no_two_pairs_are_near_duplicates_in_source_or_summary(stdlib_and_rich):
    samples = stdlib_and_rich.train + stdlib_and_rich.eval
    for width, text in ((3, source_of), (1, lambda sample: sample.messages[-1].content)):
        shingles = [NearDuplicates(width)._shingles(text(sample)) for sample in samples]
        for place, first in enumerate(shingles):
            for second in shingles[:place]:
                assert jaccard(first, second) < 0.8


def test_packages_take_turns(stdlib_and_rich):
    counts = Counter(sample.origin.split("/")[0] for sample in stdlib_and_rich.train)
    assert max(counts.values()) - min(counts.values()) <= 1


def test_the_same_seed_gives_the_same_pairs_and_another_gives_others(stdlib_and_rich):
    fields = {"packages": ["httpx"], "eval_packages": ["click"], "max_train": 20, "max_eval": 5}
    first, again, other = draw(**fields), draw(**fields), draw(seed=1, **fields)
    assert (first.train, first.eval, first.notes) == (again.train, again.eval, again.notes)
    assert {s.origin for s in first.train} != {s.origin for s in other.train}


def test_nothing_of_a_package_is_imported():
    code = (
        "import sys\n"
        "from etude.tuning.config.sections.data import DataSpec\n"
        "from etude.tuning.data.sources.docstrings import load_docstrings\n"
        "before = set(sys.modules)\n"
        "load_docstrings(DataSpec(kind='docstrings', packages=['networkx', 'sympy.core'],"
        " eval_packages=['jinja2'], max_train=9, max_eval=3), 0)\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "assert not new & {'networkx', 'sympy', 'jinja2'}, new\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


FUNCTION = '''
def {name}(values):
    """{summary}"""
    total = {number}
    for value in values:
        total += value * {number} - {name}_{number}
    return total
'''

SUMMARIES = [
    "Add up all values that are given.",
    "Open the file and read its first line.",
    "Tell whether two trees have equal shape.",
    "Remove every node without an edge.",
    "Draw the histogram below the curve.",
    "Find the shortest way between cities.",
    "Translate a word by the dictionary.",
    "Compress bytes until they fit the page.",
    "Wait for the lock and take it.",
    "Split the sentence at its commas.",
]


@pytest.fixture
def project(tmp_path) -> Path:
    """A person's package of ten modules, with what such a folder also holds."""
    folder = tmp_path / "project"
    for number, summary in enumerate(SUMMARIES):
        file = folder / f"module_{number}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(FUNCTION.format(name=f"work_{number}", summary=summary, number=number * 37))
    return folder


def test_of_a_persons_own_package_whole_modules_are_held_out(project):
    split = draw(packages=[str(project)], eval_fraction=0.2)
    files = [{s.origin.split(":")[0] for s in side} for side in (split.train, split.eval)]
    assert len(files[0]) + len(files[1]) == 10 and not files[0] & files[1]
    assert 1 <= len(files[1]) <= 3
    assert "modules of project" in split.notes[1]


@pytest.mark.parametrize("seed", range(5))
def test_modules_without_a_usable_function_are_not_all_that_is_held_out(project, seed):
    for number in range(60):
        (project / f"bare_{number}.py").write_text("def f():\n    return 1\n" * 40)
    split = draw(seed=seed, packages=[str(project)], eval_fraction=0.05)
    assert len(split.eval) == 1 and len(split.train) == 9


def test_tests_vendored_and_generated_code_and_what_does_not_parse_are_passed_over(project):
    for place in ("tests/helper.py", "_vendor/lib.py", ".venv/lib.py", "test_it.py", "x_pb2.py"):
        file = project / place
        file.parent.mkdir(exist_ok=True)
        file.write_text(
            FUNCTION.format(name="no", summary="Do something not to be seen.", number=1)
        )
    (project / "made.py").write_text(
        "# Automatically generated. Do not edit.\n"
        + FUNCTION.format(name="no", summary="Do something not to be seen.", number=1)
    )
    (project / "broken.py").write_text('def no(:\n    """Do something not to be seen."""\n')
    (project / "latin.py").write_bytes(b'def no():\n    """Do caf\xe9 things."""\n    return 1\n')
    split = draw(packages=[str(project)], eval_fraction=0.2)
    assert len(split.train) + len(split.eval) == 10


def test_a_copy_of_held_out_code_is_taken_out_of_training(project, tmp_path):
    held_out = tmp_path / "held"
    held_out.mkdir()
    copied = (project / "module_3.py").read_text()
    (held_out / "theirs.py").write_text(copied.replace("value ", "item ").replace("work_3", "x"))
    split = draw(packages=[str(project)], eval_packages=[str(held_out)])
    assert len(split.eval) == 1
    assert {sample.messages[-1].content for sample in split.train} == set(SUMMARIES) - {
        SUMMARIES[3]
    }
    assert "near-duplicate 1" in split.notes[0]


def test_a_held_out_part_of_a_package_is_not_trained_on(project):
    split = draw(packages=[str(project)], eval_packages=[str(project / "module_4.py")])
    assert [s.messages[-1].content for s in split.eval] == [SUMMARIES[4]]
    assert len(split.train) == 9


def test_what_cannot_be_found_or_used_is_refused(project, tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"no installed package and no folder 'numpi'.*'numpy'"):
        draw(packages=["numpi"])
    with pytest.raises(DataError, match="has no Python source"):
        draw(packages=["sys"], eval_packages=["httpx"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no \.py files"):
        draw(packages=[str(tmp_path / "empty")])
    with pytest.raises(DataError, match="usable functions in one module at most"):
        draw(packages=[str(project / "module_1.py")])
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "a.py").write_text("def f():\n    return 1\n")
    with pytest.raises(DataError, match="no usable functions to train on in bare"):
        draw(packages=[str(bare)], eval_packages=[str(project)])
    (tmp_path / "numpy").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        DataError, match=r"'numpy' is a package .* and a folder here; write \./numpy"
    ):
        draw(packages=["numpy"])


@pytest.mark.parametrize(
    ("docstring", "summary"),
    [
        ("Return the size of the file.", "Return the size of the file."),
        ("return the size\n    of the file\n\n    More.", "Return the size of the file."),
        ("Build a :class:`~a.b.Tree` of ``n`` nodes.", "Build a `a.b.Tree` of `n` nodes."),
        ("Open e.g. a socket and wait!", "Open e.g. a socket and wait."),
        ("Close it.", None),
        ("Return the size. It may be zero.", None),
        ("Deprecated: use the other one.", None),
        (">>> size(3)\n3", None),
        ("TODO write what this does here.", None),
        ("Gibt die Größe der Datei zurück.", None),
        ("See `other_function` for what it does.", None),
        ("f(a, b) -> the sum of both of them", None),
        (":param x: the value to be stored here", None),
        (" ".join(["word"] * 26), None),
        ("", None),
    ],
)
def test_a_summary_is_the_first_paragraph_if_it_is_one_plain_sentence(docstring, summary):
    assert summary_line(docstring) == summary


def test_functions_that_teach_nothing_are_refused_and_counted(tmp_path):
    (tmp_path / "a.py").write_text(
        '''
class A:
    def __len__(self):
        """Count all the things inside."""
        count = len(self.things)
        return count

    def get_size(self):
        """Get the size."""
        size = self.size
        return size

    def stub(self):
        """Must be written by the heirs of this class."""
        raise NotImplementedError

    def one_line(self): """Live on one line together."""; return 1

    def told(self):
        """Read the next block of bytes."""
        # Read the next block, of bytes:
        block = self.file.read()
        return block

    def short(self):
        """Return what is kept inside."""
        return 1

    @property
    def good(self):
        """Weigh the parts of the whole."""

        # parts are never None
        parts = self.parts
        return sum(parts)
'''
    )
    refused: Counter = Counter()
    (function,) = read_functions(tmp_path / "a.py", refused)
    assert function.source == (
        "@property\ndef good(self):\n    # parts are never None\n"
        "    parts = self.parts\n    return sum(parts)"
    )
    assert (function.name, function.summary) == ("good", "Weigh the parts of the whole.")
    assert refused == {
        "special method": 1,
        "summary repeats the name": 1,
        "body is a stub": 1,
        "summary is in the source": 1,
        "source too short or too long": 2,
    }


def test_files_come_in_a_fixed_order_without_following_links(project, tmp_path):
    (project / "loop").symlink_to(project)
    names = [file.name for file in python_files(project)]
    assert names == sorted(names) and len(names) == 10
