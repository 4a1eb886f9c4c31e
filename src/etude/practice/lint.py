"""Linter of problems: checks the files, judges the author's answers and tests the tests.

The solution must pass, each wrong answer must get the verdict that its author named, and three
generated impostors must fail: zeros, ones, and the mean of the right answer, of the right shape
and type.
"""

# What torch, NumPy and others leave untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false
from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, cast
from urllib.parse import urlparse

import numpy as np
import torch

from etude.core.errors import ProblemError
from etude.practice.compare import Tolerance, compare
from etude.practice.judge.judge import Judge
from etude.practice.judge.test_cases import Case, make_cases
from etude.practice.judge.verdict import Verdict
from etude.practice.problem import COLLECTIONS, Problem
from etude.practice.protocol import Dataset

LEAST_HIDDEN, LEAST_WRONG, HINTS = 8, 3, 3
HARDEST_READING = 14.0
SEEDS = (1, 2, 3)
VERDICTS = re.compile(
    r"wrong answer: (type|shape|dtype|not finite|values|mutated input|not deterministic"
    r"|no exception|unreadable)"
    r"|runtime error|time limit|memory limit|output limit|forbidden operation|compile error"
)


@dataclass(frozen=True)
class Finding:
    """One fault of a problem."""

    problem: str
    where: str
    says: str

    def __str__(self) -> str:
        return f"{self.problem}/{self.where}: {self.says}"


def lint(problem: Problem, judge: Judge) -> list[Finding]:
    """Return all faults of `problem`, from the cheapest checks first."""
    found = [
        Finding(f"{problem.collection}/{problem.slug}", where, says)
        for where, says in _files(problem)
    ]
    try:
        checks = [*_tests(problem), *_answers(problem, judge)]
    except ProblemError as error:
        checks = [("tests.py", str(error))]
    return found + [
        Finding(f"{problem.collection}/{problem.slug}", where, says) for where, says in checks
    ]


def _files(problem: Problem) -> Iterator[tuple[str, str]]:
    if problem.collection not in COLLECTIONS:
        yield (
            "",
            f"unknown collection {problem.collection!r}; use one of {', '.join(COLLECTIONS)}",
        )
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", problem.slug):
        yield "", "the folder's name must be lower-case words joined by hyphens"
    try:
        hints = problem.hints
        if len(hints) != HINTS or any(len(hint) < 20 for hint in hints):
            yield (
                "hints.md",
                f"{HINTS} hints of a sentence or more are needed, each under a `## ` heading",
            )
        if len(problem.explanation.split()) < 120:
            yield "explanation.md", "the explanation must have at least 120 words"
        yield from _prose(problem)
        for name, source in (("starter.py", problem.starter), ("solution.py", problem.solution)):
            if not _defines(source, problem.entry):
                yield name, f"{problem.entry} is not defined"
        yield from _signature(problem)
    except ProblemError as error:
        yield "", str(error)
    if len(problem.wrong) < LEAST_WRONG:
        yield "wrong", f"{LEAST_WRONG} wrong answers are needed; found {len(problem.wrong)}"
    for name, _, expected in problem.wrong:
        if not all(VERDICTS.fullmatch(one) for one in _verdicts(expected)):
            yield (
                f"wrong/{name}",
                "the first line must be like `# expect: wrong answer: shape`",
            )


def _defines(source: str, entry: str) -> bool:
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return False
    return any(
        isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == entry
        for node in tree.body
    )


def _signature(problem: Problem) -> Iterator[tuple[str, str]]:
    """Check that the statement names every required item and every tested exception."""
    node = ast.parse(problem.front.signature.rstrip(":") + ": ...").body[0]
    names = (
        [argument.arg for argument in node.args.args] if isinstance(node, ast.FunctionDef) else []
    )
    for name in [problem.entry, *(name for name in names if name != "self")]:
        if not re.search(rf"\b{re.escape(name)}\b", problem.statement):
            yield "problem.md", f"the statement does not mention `{name}`"
    if "```" not in problem.statement:
        yield "problem.md", "the example in a code block is missing"
    if not re.search(r"^## Constraints", problem.statement, flags=re.MULTILINE):
        yield "problem.md", "the section `## Constraints` is missing"
    for test in problem.suite.tests:
        if test.raises is not None and test.raises.__name__ not in problem.statement:
            yield (
                "problem.md",
                f"a test expects {test.raises.__name__}, which the statement does not mention",
            )
    for edge in problem.front.edges:
        if not any(test.edge == edge for test in problem.suite.tests):
            yield "tests.py", f"no test covers the edge {edge!r}"
    for test in problem.suite.tests:
        if test.edge is not None and test.edge not in problem.front.edges:
            yield "problem.md", f"the edge {test.edge!r} of a test is not in the front matter"


def _prose(problem: Problem) -> Iterator[tuple[str, str]]:
    for name, text in (("problem.md", problem.statement), ("explanation.md", problem.explanation)):
        plain = _plain(text)
        if (grade := reading_grade(plain)) > HARDEST_READING:
            yield (
                name,
                f"hard to read (grade {grade:.1f}, at most {HARDEST_READING:g}): shorten sentences",
            )
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            address = urlparse(link)
            if address.scheme not in ("", "https") or (
                address.scheme and "." not in address.netloc
            ):
                yield name, f"the link {link} is not a complete https URL"
            elif (
                not address.scheme
                and not address.path.startswith("#")
                and not (problem.folder / address.path).exists()
            ):
                yield name, f"the link {link} is broken"
        if text.count("$") % 2:
            yield name, "a formula has an unclosed $"


def _plain(text: str) -> str:
    """Return text without code, formulas, tables and headings."""
    text = re.sub(r"```.*?```|\$\$.*?\$\$", " ", text, flags=re.DOTALL)
    text = re.sub(r"^(#|\|).*$", " ", text, flags=re.MULTILINE)
    text = re.sub(r"`[^`]*`|\$[^$]*\$", "x", text)
    # Items of a list are separate sentences.
    return re.sub(
        r"^\s*(?:[-*]|\d+\.)\s+", ". ", re.sub(r"\]\([^)]*\)", "]", text), flags=re.MULTILINE
    )


def reading_grade(text: str) -> float:
    """Return the Flesch-Kincaid grade: school years needed (Kincaid et al. 1975).

    Technical terms (*attention*, *normalisation*) count with all their syllables, so the bound
    is set for sentences that are too long, not for necessary terms.
    """
    sentences = [
        part for part in re.split(r"[.!?:;]+(?:\s|$)", text) if re.search(r"[A-Za-z]{2}", part)
    ]
    words = re.findall(r"[A-Za-z']+", text)
    if not sentences or not words:
        return 0.0
    syllables = sum(
        max(1, len(re.findall(r"[aeiouy]+", word.lower())) - word.lower().endswith("e"))
        for word in words
    )
    return 0.39 * len(words) / len(sentences) + 11.8 * syllables / len(words) - 15.59


def _tests(problem: Problem) -> Iterator[tuple[str, str]]:
    suite = problem.suite
    hidden = [test for test in suite.tests if not test.visible]
    if len(hidden) < LEAST_HIDDEN:
        yield "tests.py", f"{LEAST_HIDDEN} hidden tests are needed; found {len(hidden)}"
    if len(hidden) == len(suite.tests):
        yield "tests.py", "there is no visible test"
    cases = [make_cases(problem, seed) for seed in SEEDS]
    again = {case.test.name: case.frame for case in make_cases(problem, SEEDS[0])}
    if any(again[case.test.name] != case.frame for case in cases[0]):
        yield (
            "tests.py",
            "the same seed gives different inputs each time: draw every random number from `rng`",
        )
    for made in cases:
        shown = {case.frame for case in made if case.test.visible}
        for case in made:
            if not case.test.visible and case.frame in shown:
                yield (
                    "tests.py",
                    f"the hidden test {case.test.name!r} has the same input as a visible test",
                )
                return
    if suite.checker is None:
        yield from _impostors(suite.tolerance, cases[0])


def _impostors(tolerance: Tolerance, cases: list[Case]) -> Iterator[tuple[str, str]]:
    kinds: list[tuple[str, Callable[[Any], Any]]] = [
        ("zeros", np.zeros_like),
        ("ones", np.ones_like),
        ("the mean", lambda values: _mean(values, overall)),
    ]
    told = [case for case in cases if case.raises is None]
    numbers = [_wide(leaf).real.ravel() for case in told for leaf in _leaves(case.expected)]
    finite = np.concatenate([*numbers, np.zeros(0)])
    finite = finite[np.isfinite(finite)]
    overall = float(finite.mean()) if finite.size else 0.0
    if not any(_holds_numbers(case.expected) for case in told):
        return
    for name, fill in kinds:
        if all(
            compare(_filled(case.expected, fill), case.expected, case.test.tolerance or tolerance)
            is None
            for case in told
        ):
            yield "tests.py", f"{name} pass every test in place of the answer"


def _mean(values: Any, overall: float) -> Any:
    """Return the answer's mean; for a single number, the mean of all answers."""
    return np.full_like(values, values.mean() if values.size > 1 else overall)


def _holds_numbers(value: Any) -> bool:
    return any(True for _ in _leaves(value))


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, torch.Tensor | np.ndarray | float):
        yield value
    elif isinstance(value, Dataset):
        yield from value.tensors
    elif isinstance(value, list | tuple):
        for item in cast("list[Any]", value):
            yield from _leaves(item)
    elif isinstance(value, dict):
        yield from _leaves(list(cast("dict[Any, Any]", value).values()))


def _wide(leaf: Any) -> Any:
    """Return numbers as float64 or complex128."""
    if isinstance(leaf, torch.Tensor):
        wide = torch.complex128 if leaf.dtype.is_complex else torch.float64
        return leaf.detach().to(wide).numpy()
    return np.asarray(leaf, dtype=np.float64)


def _filled(value: Any, fill: Callable[[Any], Any]) -> Any:
    """Return `value` with every number replaced, keeping structure and types."""
    if isinstance(value, torch.nn.Parameter):
        return torch.nn.Parameter(_filled(value.detach(), fill), requires_grad=value.requires_grad)
    if isinstance(value, torch.Tensor):
        wide = (
            value.detach().to(torch.complex128 if value.dtype.is_complex else torch.float64).numpy()
        )
        return torch.from_numpy(np.asarray(fill(wide))).to(value.dtype)
    if isinstance(value, np.ndarray):
        return fill(value.astype(np.float64)).astype(value.dtype)
    if isinstance(value, float):
        return float(fill(np.asarray(value)))
    if isinstance(value, Dataset):
        return replace(value, tensors=tuple(_filled(item, fill) for item in value.tensors))
    if isinstance(value, list | tuple) and not isinstance(value, torch.Size):
        return type(value)(_filled(item, fill) for item in cast("list[Any]", value))
    if isinstance(value, dict):
        return {key: _filled(item, fill) for key, item in cast("dict[Any, Any]", value).items()}
    return value


def _answers(problem: Problem, judge: Judge) -> Iterator[tuple[str, str]]:
    """Judge the author's own answers as if learners had sent them."""
    for seed in SEEDS:
        verdict = judge.judge(problem, problem.solution, seed)
        if not verdict.accepted:
            yield "solution.py", f"{_brief(verdict)} (seed {seed})"
            return
    verdict = judge.judge(problem, problem.starter, SEEDS[0])
    if verdict.accepted:
        yield "starter.py", "the starter passes all tests"
    elif verdict.kind == "compile error":
        yield "starter.py", verdict.says
    for name, source, expected in problem.wrong:
        for seed in SEEDS:
            verdict = judge.judge(problem, source, seed)
            if verdict.name not in _verdicts(expected):
                yield (
                    f"wrong/{name}",
                    f"expected {expected!r}, judged {_brief(verdict)} (seed {seed})",
                )
                break


def _verdicts(expected: str) -> list[str]:
    """Return the verdicts of an `# expect:` line; several are joined by |.

    Tests run in a random order and the first that fails gives the verdict.
    """
    return [one.strip() for one in expected.split("|")]


def _brief(verdict: Verdict) -> str:
    where = f" in {verdict.test!r}" if verdict.test else ""
    return f"{verdict.name}{where}: {verdict.says}"
