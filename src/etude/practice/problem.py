"""Problem files: loads a problem from its folder, and the shelf of all problems.

A problem is a folder of plain files:

problem.md       front matter (below) and the statement
starter.py       initial code of the learner
solution.py      a right answer, which also computes the expected ones
tests.py         `suite`, a `suite.Suite`
driver.py        optional: `drive(submission, *arguments)` calls the submission and returns data
hints.md         three hints, from a nudge to nearly everything, each under a `## ` heading
explanation.md   the lesson
wrong/*.py       wrong answers; the first line `# expect: <verdict>` gives the verdict of each
"""

from __future__ import annotations

import ast
import importlib.util
import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from etude.core.errors import ProblemError, did_you_mean
from etude.core.paths import shipped_folder

if TYPE_CHECKING:
    from etude.practice.suite import Suite

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's reader where PyYAML was built with it: the whole shelf in 30 ms instead of 200."""

COLLECTIONS = ("pytorch", "llm", "machine-learning", "computer-vision")
DIFFICULTIES = ("easy", "medium", "hard")
Difficulty = Literal["easy", "medium", "hard"]


class Limits(BaseModel):
    """Resource limits of one run of all tests."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seconds: float = Field(5.0, gt=0, le=60, description="wall time, and CPU time")
    memory_mb: int = Field(512, ge=64, le=8192, description="memory beyond the interpreter's own")
    output_kb: int = Field(64, ge=1, le=1024, description="printed text")


class FrontMatter(BaseModel):
    """Front matter of `problem.md`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern=r"^[0-9a-f]{8}$", description="eight hex digits, never changed")
    title: str = Field(min_length=3, max_length=60)
    difficulty: Difficulty
    tags: list[str] = Field(min_length=1, description="concepts, the main one first")
    signature: str = Field(description="the `def` or `class` line that the submission must have")
    edges: list[str] = Field(default_factory=list, description="edge sizes that tests must cover")
    limits: Limits = Limits.model_validate({})


@dataclass(frozen=True)
class Problem:
    """One problem, read from its folder."""

    folder: Path
    slug: str
    collection: str
    front: FrontMatter
    statement: str

    @property
    def title(self) -> str:
        """Return the title."""
        return self.front.title

    @property
    def entry(self) -> str:
        """Return the name of the function or class that the submission must define."""
        return re.findall(r"(?:def|class)\s+(\w+)", self.front.signature)[0]

    def argument_names(self, count: int) -> list[str]:
        """Return names for the arguments of a test: the submission's, or its driver's."""
        names: list[str] = []
        text, wanted = f"{self.front.signature.rstrip(':')}: ...", self.entry
        if self.driver is not None:
            text, wanted = self.driver, "drive"
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef) and node.name == wanted:
                names = [one.arg for one in (*node.args.posonlyargs, *node.args.args)]
        # A driver's first argument is the submission.
        names = names[1:] if self.driver is not None else names
        return [
            names[index] if index < len(names) else f"argument {index + 1}"
            for index in range(count)
        ]

    @property
    def starter(self) -> str:
        """Return the initial code."""
        return self._text("starter.py")

    @property
    def solution(self) -> str:
        """Return the source of the right answer."""
        return self._text("solution.py")

    @property
    def driver(self) -> str | None:
        """Return the source of the driver, or None where a plain call suffices."""
        return self._text("driver.py") if (self.folder / "driver.py").exists() else None

    @property
    def explanation(self) -> str:
        """Return the lesson as Markdown."""
        return self._text("explanation.md")

    @property
    def hints(self) -> list[str]:
        """Return the hints, from a nudge to nearly everything."""
        parts = re.split(r"^## .*$", self._text("hints.md"), flags=re.MULTILINE)
        return [part.strip() for part in parts[1:]]

    @property
    def wrong(self) -> list[tuple[str, str, str]]:
        """Return (file name, source, expected verdict) of each wrong answer."""
        answers: list[tuple[str, str, str]] = []
        for file in sorted((self.folder / "wrong").glob("*.py")):
            source = file.read_text(encoding="utf-8")
            expected = re.match(r"# expect: (.+)", source)
            answers.append((file.name, source, expected[1].strip() if expected else ""))
        return answers

    @cached_property
    def suite(self) -> Suite:
        """Return the tests.

        Raises:
            ProblemError: `tests.py` cannot be imported, or has no suite.
        """
        # Imported here because it imports torch: a list of problems is shown without.
        from etude.practice.suite import Suite

        suite = getattr(
            load_module(self.folder / "tests.py", f"etude_tests_{self.front.id}"), "suite", None
        )
        if not isinstance(suite, Suite) or not suite.tests:
            raise ProblemError(f"{self.folder / 'tests.py'}: `suite` is missing or has no tests")
        return suite

    def _text(self, name: str) -> str:
        try:
            return (self.folder / name).read_text(encoding="utf-8")
        except OSError as error:
            raise ProblemError(
                f"{self.folder}: {name} cannot be read ({error.strerror})"
            ) from error


def load_module(file: Path, name: str) -> ModuleType:
    """Import an author's file; for the trusted side only."""
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ProblemError(f"{file}: cannot be imported")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ProblemError(f"{file}: {type(error).__name__}: {error}") from error
    return module


def load_problem(folder: Path) -> Problem:
    """Read the problem in `folder`; its other files are read on demand.

    Raises:
        ProblemError: the folder, its front matter or its signature is invalid.
    """
    file = folder / "problem.md"
    try:
        found = file.stat()
        front, statement = _read_text(file, found.st_mtime_ns, found.st_size)
    except OSError as error:
        raise ProblemError(f"{folder} is not a problem: problem.md cannot be read") from error
    return Problem(folder, folder.name, folder.parent.name, front, statement)


@lru_cache(maxsize=2048)
def _read_text(file: Path, changed: int, size: int) -> tuple[FrontMatter, str]:
    """Read problem.md: parsed again only when the file has changed, as lists read all of them."""
    del changed, size
    text = file.read_text(encoding="utf-8")
    parts = re.match(r"---\n(.*?)\n---\n(.*)", text, flags=re.DOTALL)
    if parts is None:
        raise ProblemError(f"{file}: front matter between two lines of --- is missing")
    try:
        front = FrontMatter.model_validate(yaml.load(parts[1], Loader=_Loader))
    except yaml.YAMLError as error:
        raise ProblemError(f"{file}: {error}") from error
    except ValidationError as error:
        first: Any = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "front matter"
        raise ProblemError(f"{file}: {where}: {first['msg']}") from error
    try:
        ast.parse(front.signature.rstrip(":") + ": ...")
    except SyntaxError as error:
        raise ProblemError(f"{file}: signature: {error.msg}") from error
    return front, parts[2].strip()


def shelf_folder() -> Path:
    """Return the folder of the problems shipped with Etude."""
    return shipped_folder("content") / "problems"


def load_shelf(folder: Path | None = None) -> list[Problem]:
    """Read all problems, in the order of collection, difficulty and title."""
    root = folder or shelf_folder()
    # Hidden folders are problems that are being written.
    found = [load_problem(file.parent) for file in root.glob("*/[!.]*/problem.md")]

    def order(problem: Problem) -> tuple[int, str, int, str]:
        known = problem.collection in COLLECTIONS
        place = COLLECTIONS.index(problem.collection) if known else len(COLLECTIONS)
        return (
            place,
            problem.collection,
            DIFFICULTIES.index(problem.front.difficulty),
            problem.title,
        )

    return sorted(found, key=order)


def find_problem(slug: str, folder: Path | None = None) -> Problem:
    """Return one problem of the shelf.

    Raises:
        ProblemError: no problem has this name.
    """
    problems = {problem.slug: problem for problem in load_shelf(folder)}
    if slug not in problems:
        raise ProblemError(
            f"unknown problem {slug!r}{did_you_mean(slug, problems)}; see `etude practice list`"
        )
    return problems[slug]
