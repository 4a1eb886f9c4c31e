"""Rule-based diagnosis of a failed submission, from its verdict, the tests' notes and its code.

It gives the kind of error, its place, the smallest failing input, the concept to read about, and
possible causes found in the syntax tree. Causes are phrased as questions or possibilities, because
nothing was run to prove them.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from etude.practice.judge.verdict import Shown, Verdict
from etude.practice.problem import Problem

KINDS = {
    "wrong answer: type": "The answer is of the wrong class.",
    "wrong answer: shape": "The answer has the wrong shape.",
    "wrong answer: dtype": "The numbers are of the wrong type.",
    "wrong answer: not finite": "Somewhere a number became infinite or NaN.",
    "wrong answer: values": "The form of the answer is right, its values are not.",
    "wrong answer: mutated input": "An argument was modified in place; the caller still needs it.",
    "wrong answer: not deterministic": "The same input gave two different answers.",
    "wrong answer: no exception": "Invalid input was accepted.",
    "wrong answer: unreadable": "The answer could not be read.",
    "runtime error": "The program stopped with an exception.",
    "time limit": "The program did not finish in time.",
    "memory limit": "The program used more memory than allowed.",
    "output limit": "The program printed or returned too much.",
    "forbidden operation": "The program tried to reach files, processes or the network.",
    "compile error": "Python could not read the program, or it lacks the required definition.",
    "system fault": "The judge failed. Your program is not to blame; submit it again.",
}


@dataclass(frozen=True)
class Diagnosis:
    """Facts about a failure, and its possible causes."""

    what: str
    where: str
    says: str
    note: str
    concept: str
    smallest: Shown | None
    """The smallest visible input that fails, if any."""
    failing: list[str]
    """Names of all failing tests, smallest input first."""
    causes: list[str] = field(default_factory=list[str])
    """Possible causes found in the code."""

    def text(self) -> str:
        """Return the diagnosis as Markdown."""
        lines = [
            f"**{self.what}** {self.says[:1].upper()}{self.says[1:]}."
            if self.says
            else f"**{self.what}**"
        ]
        if self.where:
            lines.append(f"Where: {self.where}")
        if self.smallest is not None:
            arguments = "\n".join(self.smallest.arguments)
            shown = f"{arguments}\n# expected\n{self.smallest.expected}\n# got\n{self.smallest.got}"
            lines.append(f"The smallest visible input that fails:\n\n```python\n{shown}\n```")
        if len(self.failing) > 1:
            lines.append(f"{len(self.failing)} tests fail: {', '.join(self.failing)}.")
        if self.note:
            lines.append(f"The author's note: {self.note}")
        lines += [f"Possible cause: {cause}" for cause in self.causes]
        if self.concept:
            lines.append(f"Read about: {self.concept}.")
        return "\n\n".join(lines)


def diagnose(problem: Problem, source: str, verdict: Verdict) -> Diagnosis:
    """Return the diagnosis of a failed submission."""
    where = ""
    if verdict.lines:
        last = verdict.lines[-1]
        where = f"line {last.line}: `{last.code.strip()}`" if last.code else f"line {last.line}"
    if verdict.test:
        test = f"the {'visible' if verdict.visible else 'hidden'} test “{verdict.test}”"
        where = f"{where}, in {test}" if where else test
    try:
        tree = ast.parse(source)
    except SyntaxError:
        tree = None
    causes = list(_causes(problem, tree, verdict)) if tree is not None else []
    return Diagnosis(
        what=KINDS.get(verdict.name, KINDS.get(verdict.kind, verdict.kind)),
        where=where,
        says=verdict.says,
        note=verdict.note,
        concept=verdict.concept,
        smallest=verdict.smallest or verdict.shown,
        failing=verdict.failing,
        causes=causes[:3],
    )


def _causes(problem: Problem, tree: ast.Module, verdict: Verdict) -> Iterator[str]:
    """Yield common causes of this verdict that the code shows."""
    entry = next(
        (
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == problem.entry
        ),
        None,
    )
    if entry is None:
        return
    for applies, look in _READERS:
        if verdict.name.startswith(applies):
            yield from look(entry, verdict)


def _no_return(entry: ast.AST, verdict: Verdict) -> Iterator[str]:
    if not isinstance(entry, ast.FunctionDef) or "None" not in verdict.says:
        return
    returns = [
        node for node in ast.walk(entry) if isinstance(node, ast.Return) and node.value is not None
    ]
    prints = any(_called(node) == "print" for node in ast.walk(entry))
    if not returns:
        yield f"`{entry.name}` has no `return` with a value" + (
            ", it prints instead" if prints else ""
        )
    elif not isinstance(entry.body[-1], ast.Return | ast.Raise):
        yield "one path through the function ends without a `return`"


def _calls(names: tuple[str, ...], says: str) -> Callable[[ast.AST, Verdict], Iterator[str]]:
    def look(entry: ast.AST, _: Verdict) -> Iterator[str]:
        for node in ast.walk(entry):
            if _called(node) in names:
                yield f"`{_called(node)}` in line {getattr(node, 'lineno', 0)}: {says}"
                return

    return look


def _in_place(entry: ast.AST, _: Verdict) -> Iterator[str]:
    arguments = (
        {argument.arg for argument in entry.args.args}
        if isinstance(entry, ast.FunctionDef)
        else set[str]()
    )
    for node in ast.walk(entry):
        name = _called(node)
        if name.endswith("_") and not name.startswith("_") and name != "requires_grad_":
            where = f"`{name}` in line {getattr(node, 'lineno', 0)}"
            yield f"{where} works in place; without the underscore it returns a new tensor"
            return
        targets = (
            node.targets
            if isinstance(node, ast.Assign)
            else [node.target]
            if isinstance(node, ast.AugAssign)
            else []
        )
        for target in targets:
            base = (
                target.value
                if isinstance(target, ast.Subscript)
                else target
                if isinstance(node, ast.AugAssign)
                else None
            )
            if isinstance(base, ast.Name) and base.id in arguments:
                line = getattr(node, "lineno", 0)
                yield f"line {line} writes into the argument `{base.id}`; work on a `clone()`"
                return


def _loops(entry: ast.AST, _: Verdict) -> Iterator[str]:
    for node in ast.walk(entry):
        endless = isinstance(node, ast.While) and isinstance(node.test, ast.Constant)
        leaves = any(isinstance(inner, ast.Break | ast.Return) for inner in ast.walk(node))
        if isinstance(node, ast.While) and endless and not leaves:
            yield f"the loop in line {node.lineno} never ends"
            return
        if isinstance(node, ast.For) and any(
            isinstance(inner, ast.For) for inner in ast.walk(node) if inner is not node
        ):
            yield (
                f"nested loops over elements begin in line {node.lineno}; "
                "one operation on whole tensors is often enough"
            )
            return


def _own_recursion(entry: ast.AST, _: Verdict) -> Iterator[str]:
    if isinstance(entry, ast.FunctionDef) and any(
        _called(node) == entry.name for node in ast.walk(entry)
    ):
        yield f"`{entry.name}` calls itself; is there an input for which it stops?"


def _divides(entry: ast.AST, _: Verdict) -> Iterator[str]:
    for node in ast.walk(entry):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            yield f"the division in line {node.lineno}: can the divisor be 0?"
            return
        if _called(node) in ("log", "exp", "sqrt", "rsqrt"):
            where = f"`{_called(node)}` in line {getattr(node, 'lineno', 0)}"
            yield f"{where}: what does it return for 0, a negative or a very large number?"
            return


def _randomness(entry: ast.AST, _: Verdict) -> Iterator[str]:
    for node in ast.walk(entry):
        if _called(node) in (
            "rand",
            "randn",
            "randint",
            "randperm",
            "shuffle",
            "random",
            "choice",
            "multinomial",
        ):
            where = f"`{_called(node)}` in line {getattr(node, 'lineno', 0)}"
            yield f"{where} draws random numbers without a generator of its own"
            return


def _called(node: ast.AST) -> str:
    """Return the last name of a node's callee, or an empty string."""
    if not isinstance(node, ast.Call):
        return ""
    function = node.func
    return (
        function.attr
        if isinstance(function, ast.Attribute)
        else function.id
        if isinstance(function, ast.Name)
        else ""
    )


_READERS: tuple[tuple[str, Callable[[ast.AST, Verdict], Iterator[str]]], ...] = (
    ("wrong answer: type", _no_return),
    (
        "wrong answer: type",
        _calls(("item", "tolist", "numpy"), "its result is not a tensor; is a tensor required?"),
    ),
    (
        "wrong answer: shape",
        _calls(
            ("squeeze", "flatten", "ravel"), "it drops dimensions of size 1, which edge cases have"
        ),
    ),
    (
        "wrong answer: shape",
        _calls(
            ("mean", "sum", "max", "min", "amax", "norm"),
            "is the dimension kept or dropped as required (`keepdim`)?",
        ),
    ),
    (
        "wrong answer: dtype",
        _calls(
            ("float", "double", "half", "long", "int", "to", "astype", "type"),
            "does it change a dtype that must be kept?",
        ),
    ),
    (
        "wrong answer: dtype",
        _calls(
            ("zeros", "ones", "empty", "full", "arange", "tensor"),
            "without `dtype=` it uses its default dtype",
        ),
    ),
    ("wrong answer: not finite", _divides),
    ("wrong answer: values", _divides),
    ("wrong answer: mutated input", _in_place),
    ("wrong answer: not deterministic", _randomness),
    ("time limit", _loops),
    ("time limit", _own_recursion),
    ("runtime error", _own_recursion),
    ("memory limit", _own_recursion),
    ("memory limit", _loops),
)
