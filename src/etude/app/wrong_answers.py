"""Wrong answers that authors ship with a problem: why each fails, and where it leaves the solution.

For somebody who has solved the problem. The reasons are the kind of verdict, and what a diagnosis
finds in the code; nothing is run.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import TYPE_CHECKING

from etude.app.attempts import difference, sentence

if TYPE_CHECKING:
    from etude.practice.problem import Problem


@dataclass(frozen=True)
class WrongAnswer:
    """An answer that others may think of, and why it fails."""

    name: str
    source: str
    verdicts: list[str]
    reasons: list[str]
    """As Markdown."""
    lines: list[tuple[str, str]]
    """How it differs from the author's solution, as `difference` says it; in both, what computes
    nothing is left out."""


def wrong_answers(problem: Problem) -> list[WrongAnswer]:
    """Return the author's collection of wrong answers, and why each fails."""
    from etude.practice.diagnose import KINDS, diagnose
    from etude.practice.judge.verdict import Verdict

    answers: list[WrongAnswer] = []
    for file, source, expected in problem.wrong:
        verdicts = [one.strip() for one in expected.split("|")]
        code = source.split("\n", 1)[1].strip("\n") + "\n" if source.startswith("#") else source
        reasons: list[str] = []
        for name in verdicts:
            kind, _, detail = name.partition(": ")
            reasons.append(KINDS.get(name, KINDS.get(kind, kind)))
            verdict = Verdict.from_dict({"kind": kind, "detail": detail})
            reasons += [sentence(cause) for cause in diagnose(problem, code, verdict).causes]
        answers.append(
            WrongAnswer(
                file.removesuffix(".py").replace("_", " "),
                code,
                verdicts,
                list(dict.fromkeys(reasons)),
                difference(_bare(problem.solution), _bare(code)),
            )
        )
    return answers


class _Bare(ast.NodeTransformer):
    """Leaves out docstrings and annotations."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        for one in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
            one.annotation = None
        return self._without_docstring(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return self._without_docstring(node)

    def _without_docstring(self, node: ast.FunctionDef | ast.ClassDef) -> ast.AST:
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        return self.generic_visit(node)


def _bare(source: str) -> str:
    """Return code in one layout, without what computes nothing; as it is if it cannot be read."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return source
    tree.body = [one for one in tree.body if not isinstance(one, ast.Import | ast.ImportFrom)]
    return ast.unparse(_Bare().visit(tree)) + "\n"
