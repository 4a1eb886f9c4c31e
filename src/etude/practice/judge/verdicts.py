"""Derives a verdict from the result of a run: the first failure, in one sentence.

Nothing that the sandbox sends is trusted: the class and size of each part are checked before it is
compared or shown.
"""

# What torch, NumPy and others leave untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false
from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

from etude.practice.compare import Mismatch, Tolerance, compare
from etude.practice.judge import side_by_side
from etude.practice.judge.supervisor import ExecutionResult
from etude.practice.judge.test_cases import Case
from etude.practice.judge.verdict import Detail, Kind, Line, Part, Shown, Verdict
from etude.practice.problem import Problem
from etude.practice.protocol import Foreign, MalformedError, decode


class Reading:
    """Derives the verdict from the result of a run."""

    def __init__(
        self,
        problem: Problem,
        cases: list[Case],
        outcome: ExecutionResult,
        seed: int,
        isolation: str,
    ) -> None:
        self.problem, self.cases, self.outcome = problem, cases, outcome
        self.seed, self.isolation = seed, isolation
        self.passed = 0
        self.printed: list[str] = []

    def say(
        self, kind: Kind, says: str, detail: Detail = "", case: Case | None = None, **more: Any
    ) -> Verdict:
        """Return a verdict with the fields that all verdicts have."""
        told = {}
        if case is not None:
            tag = self.problem.front.tags[0]
            told = {
                "test": case.test.name,
                "visible": case.test.visible,
                "note": case.test.note or "",
                "concept": case.test.concept or tag,
            }
        return Verdict(
            kind,
            detail,
            says,
            passed=self.passed,
            total=len(self.cases),
            printed="".join(self.printed),
            seconds=self.outcome.seconds,
            peak_bytes=self.outcome.peak_bytes,
            seed=self.seed,
            isolation=self.isolation,
            **told,
            **more,
        )

    def verdict(self) -> Verdict:
        """Return the verdict: the first failure in the order of the tests, or acceptance."""
        if self.outcome.ending == "fault":
            return self.say(
                "system fault",
                f"the judge failed, not the submission: {self.outcome.fault or 'no answer'}",
            )
        answers: dict[int, dict[str, Any]] = {}
        running: Case | None = None
        for event in self.outcome.events:
            kind = event.get("event")
            if kind in ("load", "loaded"):
                self._print(event, True)
                if kind == "load":
                    return self._loading(event)
            index = event.get("index")
            if type(index) is int and 0 <= index < len(self.cases):
                if kind == "test":
                    running = self.cases[index]
                if kind == "answer":
                    answers.setdefault(index, event)
                    running = None
            if kind == "malformed":
                return self.say(
                    "wrong answer",
                    f"the answer cannot be read: {event.get('why')}",
                    "unreadable",
                    running,
                )
        failures: list[tuple[Case, Verdict]] = []
        for index, case in enumerate(self.cases):
            if index not in answers:
                failures.append((case, self._ended(running or case)))
                break
            if failure := self._answer(case, answers[index]):
                failures.append((case, failure))
            else:
                self.passed += 1
        if not failures and self.outcome.ending == "output":
            # The run had answered all tests before it could be killed: still too much output.
            failures.append((self.cases[-1], self._ended(self.cases[-1])))
        if not failures:
            return self.say("accepted", f"all {len(self.cases)} tests pass")
        by_size = sorted(failures, key=lambda pair: len(pair[0].frame))
        smallest = next(
            (verdict.shown for _, verdict in by_size if verdict.shown is not None), None
        )
        return replace(
            failures[0][1],
            passed=self.passed,
            printed="".join(self.printed),
            failing=[case.test.name for case, _ in by_size],
            smallest=smallest,
        )

    def _print(self, event: dict[str, Any], visible: bool) -> None:
        printed = event.get("printed")
        text = cast("dict[str, Any]", printed).get("text") if isinstance(printed, dict) else None
        if visible and isinstance(text, str):
            self.printed.append(text[:4096])

    def _size(self, event: dict[str, Any]) -> int:
        printed = event.get("printed")
        size = cast("dict[str, Any]", printed).get("size") if isinstance(printed, dict) else 0
        return size if type(size) is int else 0

    def _loading(self, event: dict[str, Any]) -> Verdict:
        """Return the verdict on a submission that could not be loaded."""
        error = _Error(event.get("error"))
        if error.kind == "syntax":
            where = f"line {error.lines[-1].line}: " if error.lines else ""
            return self.say(
                "compile error", f"{where}{error.classes[0]}: {error.message}", lines=error.lines
            )
        if error.kind == "entry":
            return self.say(
                "compile error", f"{error.message}: it must have `{self.problem.front.signature}`"
            )
        return self._raised(error, None)

    def _raised(self, error: _Error, case: Case | None) -> Verdict:
        where = f" in line {error.lines[-1].line}" if error.lines else ""
        name = error.classes[0]
        # A message may quote the input of a hidden test.
        message = (
            f": {error.message}" if error.message and (case is None or case.test.visible) else ""
        )
        if error.kind == "memory":
            return self.say(
                "memory limit",
                f"more than {self.problem.front.limits.memory_mb} MB used{where}",
                "",
                case,
                lines=error.lines,
            )
        if error.kind == "denied":
            return self.say(
                "forbidden operation",
                f"the operation{where} is not allowed in the sandbox",
                "",
                case,
                lines=error.lines,
            )
        if name == "SystemExit":
            return self.say(
                "runtime error", f"the program exits{where}", "", case, lines=error.lines
            )
        shown = None if case is None else self._show(case, _Raised(name))
        says = f"{name}{where}{message}"
        return self.say("runtime error", says, "", case, lines=error.lines, shown=shown)

    def _ended(self, case: Case) -> Verdict:
        """Return the verdict on a run that ended before all tests were answered."""
        limits, outcome = self.problem.front.limits, self.outcome
        if outcome.ending == "time" or (
            outcome.status in (-24, -9) and outcome.cpu_seconds >= limits.seconds
        ):
            return self.say("time limit", f"still running after {limits.seconds:g} s", "", case)
        if outcome.ending == "output":
            return self.say("output limit", f"more than {limits.output_kb} KB printed", "", case)
        if outcome.ending == "answer":
            return self.say("output limit", "the answers are larger than 64 MB", "", case)
        if outcome.status == -9:
            return self.say("memory limit", f"more than {limits.memory_mb} MB used", "", case)
        if outcome.status < 0:
            crash = {
                -11: "a crash (segmentation fault), for example after endless recursion",
                -6: "an abort",
                -7: "a bus error",
                -25: "a file larger than allowed",
            }
            end = crash.get(outcome.status, f"signal {-outcome.status}")
            return self.say(
                "runtime error",
                f"the process was killed by {end}",
                "",
                case,
            )
        return self.say(
            "runtime error", f"the program exits (exit code {outcome.status})", "", case
        )

    def _answer(self, case: Case, event: dict[str, Any]) -> Verdict | None:
        """Return the verdict on one test's answer, or None if it is correct."""
        self._print(event, case.test.visible)
        limits = self.problem.front.limits
        if self._size(event) > limits.output_kb << 10:
            return self.say("output limit", f"more than {limits.output_kb} KB printed", "", case)
        if event.get("error") is not None:
            error = _Error(event["error"])
            if case.raises is not None and case.raises in error.classes:
                return None
            return self._raised(error, case)
        got = _value(event.get("answer"))
        if case.raises is not None:
            return self.say(
                "wrong answer",
                f"no {case.raises} is raised",
                "no exception",
                case,
                shown=self._show(case, got),
            )
        if isinstance(got, _Unreadable):
            return self.say(
                "wrong answer", f"the answer cannot be read: {got.why}", "unreadable", case
            )
        if failure := self._compare(case, got):
            return failure
        changed = event.get("mutated")
        if changed:
            first = cast("list[Any]", changed)[0] if isinstance(changed, list) else 0
            return self.say(
                "wrong answer",
                f"argument {_ordinal(first)} is modified in place",
                "mutated input",
                case,
                shown=self._show(case, got),
            )
        if self.problem.suite.deterministic and event.get("second") != event.get("answer"):
            return self.say(
                "wrong answer",
                "two calls with the same input return different answers",
                "not deterministic",
                case,
            )
        return None

    def _compare(self, case: Case, got: Any) -> Verdict | None:
        suite = self.problem.suite
        if suite.checker is None:
            mismatch = compare(got, case.expected, case.test.tolerance or suite.tolerance)
        else:
            # The class is compared first, so that a checker never receives another class.
            mismatch = _same_class(got, case.expected) or self._checked(case, got)
        if mismatch is None:
            return None
        says = mismatch.says if case.test.visible else mismatch.brief
        return self.say(
            "wrong answer", says, cast("Detail", mismatch.kind), case, shown=self._show(case, got)
        )

    def _checked(self, case: Case, got: Any) -> Mismatch | None:
        try:
            says = (
                self.problem.suite.checker(tuple(decode(case.frame)), got)
                if self.problem.suite.checker
                else None
            )
        except Exception as error:
            says = f"the answer does not have the required form ({type(error).__name__})"
        return Mismatch("values", says, says) if says else None

    def _show(self, case: Case, got: Any) -> Shown | None:
        if not case.test.visible:
            return None
        expected = f"raises {case.raises}" if case.raises else _text(case.expected)
        if self.problem.suite.checker is not None:
            expected = f"for example {expected}"
        arguments = list(decode(case.frame))
        checked = self.problem.suite.checker is not None
        tolerance = case.test.tolerance or self.problem.suite.tolerance
        if case.raises is not None:
            laid_out = [Part("", expected, _text(got), differs=True)]
        elif isinstance(got, _Unreadable):
            laid_out = []
        else:
            laid_out = side_by_side.parts(case.expected, got, None if checked else tolerance)
        return Shown(
            [_text(argument) for argument in arguments],
            expected,
            _text(got),
            side_by_side.inputs(arguments, self.problem.argument_names(len(arguments))),
            laid_out,
        )


@dataclass(frozen=True)
class _Unreadable:
    why: str


@dataclass(frozen=True)
class _Raised:
    """Stands for the answer of a call that raised an exception instead."""

    name: str

    def __repr__(self) -> str:
        return f"raises {self.name}"


def _value(frame: Any) -> Any:
    if not isinstance(frame, bytes):
        return _Unreadable("the answer is missing")
    try:
        return decode(frame)
    except MalformedError as error:
        return _Unreadable(str(error))


def _same_class(got: Any, expected: Any) -> Mismatch | None:
    """Return a mismatch if an answer's class differs from the solution's."""
    found = compare(got, expected, Tolerance())
    return found if found is not None and found.kind == "type" else None


class _Error:
    """An exception as reported by the sandbox, every part checked."""

    def __init__(self, received: Any) -> None:
        data = cast("dict[str, Any]", received) if isinstance(received, dict) else {}
        classes = data.get("classes")
        names = cast("list[Any]", classes) if isinstance(classes, list) else []
        self.classes = [str(name)[:80] for name in names[:20] if isinstance(name, str)] or [
            "Exception"
        ]
        self.message = data["message"][:500] if isinstance(data.get("message"), str) else ""
        self.kind = data.get("kind")
        lines = data.get("lines")
        self.lines = [
            line
            for entry in (cast("list[Any]", lines)[:8] if isinstance(lines, list) else [])
            if (line := _line(entry))
        ]


def _line(entry: Any) -> Line | None:
    if not isinstance(entry, dict):
        return None
    data = cast("dict[str, Any]", entry)
    number, name, code = data.get("line"), data.get("name"), data.get("code")
    if type(number) is not int or not isinstance(name, str) or not isinstance(code, str):
        return None
    return Line(number, name[:80], code[:200])


def _ordinal(index: Any) -> str:
    return str(index + 1) if type(index) is int else "1"


def _text(value: Any, most: int = 600) -> str:
    """Return a value as text, truncated where it is long."""
    if isinstance(value, Foreign):
        return f"an object of the class {value.name}"
    if isinstance(value, _Unreadable):
        return "an unreadable value"
    text = repr(value)
    return text if len(text) <= most else text[:most] + " …"
